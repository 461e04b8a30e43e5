//! The bare server on tokio-uring 0.5, as its users write one: a task that reads and a task that writes for each
//! connection.

use std::io;
use std::net::TcpListener;
use std::rc::Rc;

use tokio_uring::net::TcpStream;

use crate::outbox::Outbox;
use crate::protocol::Role;
use crate::tasks::{Conversation, READ_BYTES, Server, prepare};

/// Serves until the process ends.
pub(crate) fn serve(listener: TcpListener, role: Role) -> io::Result<()> {
    let mut ring = tokio_uring::uring_builder();
    ring.setup_coop_taskrun().setup_single_issuer();
    tokio_uring::builder().entries(crate::RING_ENTRIES).uring_builder(&ring).start(accept(listener, Server::new(role)))
}

async fn accept(listener: TcpListener, server: Rc<Server>) -> io::Result<()> {
    let listener = tokio_uring::net::TcpListener::from_std(listener);
    loop {
        let (stream, _) = listener.accept().await?;
        tokio_uring::spawn(converse(Rc::new(stream), Rc::clone(&server)));
    }
}

async fn converse(stream: Rc<TcpStream>, server: Rc<Server>) {
    let mut conversation = Conversation::new(&server);
    tokio_uring::spawn(write(Rc::clone(&stream), conversation.outbox()));
    let mut buffer = Vec::with_capacity(READ_BYTES);
    loop {
        let (result, read) = stream.read(buffer).await;
        buffer = read;
        if !matches!(result, Ok(1..)) || conversation.receive(&mut buffer).is_err() {
            return;
        }
        prepare(&mut buffer);
    }
}

async fn write(stream: Rc<TcpStream>, outbox: Rc<Outbox>) {
    while let Some(bytes) = outbox.take().await {
        if stream.write_all(bytes).await.0.is_err() {
            return;
        }
    }
}
