//! Cost of the codecs: WebSocket frames in and out, client messages, channel events, HTTP requests.
//!
//! `cargo bench --bench codec`. Sizes are those of a small event, of one at the data limit, and of a large binary.

use std::hint::black_box;

use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use relay::limits::JSON_DEPTH_MAX;
use relay::protocol::client_message::decode_client_message;
use relay::protocol::server_event::{encode_channel_event, encode_json_string};
use relay::protocol::socket_id::SocketIdCipher;
use relay::wire::http::{RequestDecoder, RequestLimits};
use relay::wire::json::check_depth;
use relay::wire::websocket::{Decoder, Opcode, encode_frame};

const SIZES: [usize; 3] = [128, 10_240, 1 << 20];

/// A masked text frame of a client.
fn client_frame(payload: &[u8]) -> Vec<u8> {
    let mut frame = Vec::new();
    encode_frame(&mut frame, Opcode::Text, payload);
    frame[1] |= 0x80;
    let mask = [0x37, 0xfa, 0x21, 0x3d];
    let payload_start = frame.len() - payload.len();
    frame.splice(payload_start..payload_start, mask);
    for (byte, key) in frame[payload_start + 4..].iter_mut().zip(mask.iter().cycle()) {
        *byte ^= key;
    }
    frame
}

fn frames(criterion: &mut Criterion) {
    for size in SIZES {
        let payload = vec![b'x'; size];
        let frame = client_frame(&payload);
        let mut group = criterion.benchmark_group("websocket");
        group.throughput(Throughput::Bytes(size as u64));
        group.bench_function(format!("decode whole/{size}"), |bencher| {
            bencher.iter_batched_ref(
                || (Decoder::default(), frame.clone()),
                |(decoder, frame)| decoder.decode(frame, 1 << 20).expect("a frame").consumed,
                BatchSize::LargeInput,
            );
        });
        group.bench_function(format!("decode in pieces of 1448/{size}"), |bencher| {
            bencher.iter_batched_ref(
                || (Decoder::default(), frame.clone()),
                |(decoder, frame)| {
                    for piece in frame.chunks_mut(1_448) {
                        black_box(decoder.decode(piece, 1 << 20).expect("a frame").message.is_some());
                    }
                },
                BatchSize::LargeInput,
            );
        });
        group.bench_function(format!("encode/{size}"), |bencher| {
            let mut out = Vec::with_capacity(size + 16);
            bencher.iter(|| {
                out.clear();
                encode_frame(&mut out, Opcode::Text, black_box(&payload));
            });
        });
    }
}

fn events(criterion: &mut Criterion) {
    let object = format!(r#"{{"message":"{}","user":{{"id":7,"tags":["a","b"]}}}}"#, "hello ".repeat(16));
    let mut literal = Vec::new();
    encode_json_string(&mut literal, &object);
    let literal = String::from_utf8(literal).expect("UTF-8");
    let mut group = criterion.benchmark_group("event");
    group.bench_function("encode a literal", |bencher| {
        let mut out = Vec::with_capacity(1_024);
        bencher.iter(|| {
            out.clear();
            encode_json_string(&mut out, black_box(&object));
        });
    });
    group.bench_function("encode a channel event", |bencher| {
        let mut out = Vec::with_capacity(1_024);
        bencher.iter(|| {
            out.clear();
            encode_channel_event(&mut out, black_box("order-shipped"), "private-orders", &literal, None);
        });
    });
    let client_event = format!(r#"{{"event":"client-typing","channel":"private-room","data":{object}}}"#);
    let subscribe = r#"{"event":"pusher:subscribe","data":{"auth":"278d425bdf160c739803:58df8b0c36d6982b82c3ecf6b4662e34fe8c25bba48f5369f135bf843651c3a4","channel":"private-foobar"}}"#;
    group.bench_function("decode a client event", |bencher| {
        bencher.iter(|| decode_client_message(black_box(&client_event)).expect("a message"));
    });
    group.bench_function("decode a subscribe", |bencher| {
        bencher.iter(|| decode_client_message(black_box(subscribe)).expect("a message"));
    });
    group.bench_function("check the depth of a client event", |bencher| {
        bencher.iter(|| check_depth(black_box(client_event.as_bytes()), JSON_DEPTH_MAX));
    });
    group.bench_function("seal and open a socket id", |bencher| {
        let cipher = SocketIdCipher::new([7; 16]);
        bencher.iter(|| cipher.open(cipher.seal(black_box(7))));
    });
}

fn requests(criterion: &mut Criterion) {
    let body = r#"{"name":"foo","channels":["project-3"],"data":"{\"some\":\"data\"}"}"#;
    let request = format!(
        "POST /apps/3/events?auth_key=278d425bdf160c739803&auth_timestamp=1353088179&auth_version=1.0&body_md5=\
         ec365a775a4cd0599faeb73354201b6f&auth_signature=da454824c97ba181a32ccc17a72625ba02771f50b50e1e7430e47a1f3f457e6c \
         HTTP/1.1\r\nHost: 127.0.0.1:6001\r\nUser-Agent: pusher-http-node\r\nAccept: */*\r\nContent-Type: application/json\r\n\
         X-Pusher-Library: pusher-http-node 5.2.0\r\nContent-Length: {}\r\nConnection: keep-alive\r\n\r\n{body}",
        body.len()
    );
    criterion.bench_function("http/decode a publish", |bencher| {
        let mut decoder = RequestDecoder::default();
        let limits = RequestLimits::default();
        bencher.iter(|| decoder.decode(black_box(request.as_bytes()), &limits).expect("a request").consumed);
    });
}

criterion_group!(benches, frames, events, requests);
criterion_main!(benches);
