//! The bare server on monoio 0.2, as its users write one: a task that reads and a task that writes for each connection.

use std::io;
use std::net::TcpListener;
use std::rc::Rc;

use monoio::io::{AsyncReadRent, AsyncWriteRent, AsyncWriteRentExt, Splitable};
use monoio::net::TcpStream;

use crate::outbox::Outbox;
use crate::protocol::Role;
use crate::tasks::{Conversation, READ_BYTES, Server, prepare};

/// Serves until the process ends.
pub(crate) fn serve(listener: TcpListener, role: Role) -> io::Result<()> {
    let mut ring = io_uring_06::IoUring::builder();
    ring.setup_coop_taskrun().setup_single_issuer();
    monoio::RuntimeBuilder::<monoio::IoUringDriver>::new()
        .with_entries(crate::RING_ENTRIES)
        .uring_builder(ring)
        .build()?
        .block_on(accept(listener, Server::new(role)))
}

async fn accept(listener: TcpListener, server: Rc<Server>) -> io::Result<()> {
    let listener = monoio::net::TcpListener::from_std(listener)?;
    loop {
        let (stream, _) = listener.accept().await?;
        monoio::spawn(converse(stream, Rc::clone(&server)));
    }
}

async fn converse(stream: TcpStream, server: Rc<Server>) {
    let mut conversation = Conversation::new(&server);
    let (mut reader, writer) = stream.into_split();
    monoio::spawn(write(writer, conversation.outbox()));
    let mut buffer = Vec::with_capacity(READ_BYTES);
    loop {
        let (result, read) = reader.read(buffer).await;
        buffer = read;
        if !matches!(result, Ok(1..)) || conversation.receive(&mut buffer).is_err() {
            return;
        }
        prepare(&mut buffer);
    }
}

async fn write(mut writer: impl AsyncWriteRent, outbox: Rc<Outbox>) {
    while let Some(bytes) = outbox.take().await {
        if writer.write_all(bytes).await.0.is_err() {
            return;
        }
    }
}
