//! Rings and pools far too small for their load (U4, U6): nothing is lost, no client waits forever, nothing spins.

use super::*;

/// Clients that each have an endless supply of bytes to send, on one thread: each is written to and read from in turn,
/// with some bytes in transit at any time and never more than its socket holds.
struct Talkers {
    streams: Vec<TcpStream>,
    /// The same bytes twice, so that any piece of them is a slice, wherever it begins.
    pattern: Vec<u8>,
    written: Vec<usize>,
    echoed: Vec<usize>,
}

/// Maximum bytes of one talker in transit.
const ON_THEIR_WAY_MAX: usize = 32 * 1024;
const PATTERN_BYTES: usize = 64 * 1024;

impl Talkers {
    fn connect(server: &Server, count: usize) -> Self {
        let streams: Vec<TcpStream> = (0..count).map(|_| server.connect()).collect();
        for stream in &streams {
            stream.set_nonblocking(true).expect("an option");
        }
        Self { streams, pattern: noise(PATTERN_BYTES).repeat(2), written: vec![0; count], echoed: vec![0; count] }
    }

    /// One round over all talkers. The bytes that come back must equal those sent, byte for byte.
    fn round(&mut self) {
        let mut buffer = [0; 16 * 1024];
        for (index, stream) in self.streams.iter_mut().enumerate() {
            let at = self.written[index] % PATTERN_BYTES;
            let room = ON_THEIR_WAY_MAX - (self.written[index] - self.echoed[index]);
            if room > 0 {
                match stream.write(&self.pattern[at..at + room]) {
                    Ok(count) => self.written[index] += count,
                    Err(error) => assert_eq!(error.kind(), ErrorKind::WouldBlock, "{error}"),
                }
            }
            match stream.read(&mut buffer) {
                Ok(0) => panic!("the server ended talker {index}"),
                Ok(count) => {
                    let at = self.echoed[index] % PATTERN_BYTES;
                    assert!(buffer[..count] == self.pattern[at..at + count], "talker {index}: other bytes at {at}");
                    self.echoed[index] += count;
                }
                Err(error) => assert_eq!(error.kind(), ErrorKind::WouldBlock, "{error}"),
            }
        }
    }

    /// Talks until this many bytes came back in total.
    fn talk(&mut self, bytes: usize) {
        let end = self.echoed.iter().sum::<usize>() + bytes;
        let started = std::time::Instant::now();
        while self.echoed.iter().sum::<usize>() < end {
            self.round();
            assert!(started.elapsed() < Duration::from_secs(120), "the server stands still at {:?}", self.echoed);
        }
    }

    /// Reads the bytes in transit, until every byte that was written has come back.
    fn read_rest(&mut self) {
        for (index, stream) in self.streams.iter_mut().enumerate() {
            stream.set_nonblocking(false).expect("an option");
            let mut rest = vec![0; self.written[index] - self.echoed[index]];
            stream.read_exact(&mut rest).expect("the server answers");
            let at = self.echoed[index] % PATTERN_BYTES;
            assert!(rest == self.pattern[at..at + rest.len()], "talker {index}");
            self.echoed[index] = self.written[index];
        }
    }

    /// The most and the fewest bytes that came back since `before`.
    fn spread(&self, before: &[usize]) -> (usize, usize) {
        let gained = self.echoed.iter().zip(before).map(|(now, before)| now - before);
        (gained.clone().max().expect("some"), gained.min().expect("some"))
    }
}

/// U4, R21: completion queues of 64 and 128 entries overflow under 600 and 1,200 busy sockets; every byte comes back,
/// the overflows are counted, and once all is quiet the loop sleeps. Method: each talker has 32 KiB in transit all the
/// time, and compares what it receives.
#[test]
fn small_queues_overflow_and_recover() {
    for (completions, talkers) in [(64, 600), (128, 1_200)] {
        let mut shape = Shape::default();
        // As many concurrent operations as completions fit: sends and receives mostly complete as they are submitted.
        shape.options.submissions = completions;
        shape.options.completions = completions;
        let server = Server::start(Manner::Echo, shape);
        let mut talkers = Talkers::connect(&server, talkers);
        talkers.talk(16_000_000);
        talkers.read_rest();
        // Recovered: new data is answered as before, and the loop is not busy with the old.
        for stream in &mut talkers.streams {
            echo(stream, b"and now?");
        }
        let echoed: usize = talkers.echoed.iter().sum();
        drop(talkers);
        let (core, figures) = server.stop();
        println!("U4: {completions} entries, {echoed} bytes echoed, {figures:?}");
        assert!(figures.overflows > 0, "{figures:?}");
        // A turn handles at least one receive or send, or ends one.
        assert!(figures.turns < 10 * core.sends + 100_000, "it span: {} sends, {figures:?}", core.sends);
    }
}

/// U6, R21: pools of 2 and 8 receive buffers serve 200 talkers evenly: no talker gets less than a quarter of what
/// another gets, and the loop does not spin. Method: bytes echoed per talker between two points in the middle of the
/// run.
#[test]
fn few_buffers_are_shared_fairly() {
    for buffers in [2, 8] {
        let mut shape = Shape::default();
        shape.options.buffers = buffers;
        // A small part of each talker's bytes in transit, so that shares are counted in many receives.
        shape.options.buffer_bytes = 2_048;
        let server = Server::start(Manner::Echo, shape);
        let mut talkers = Talkers::connect(&server, 200);
        // The talker that connected first is ahead by a few windows, which must be a small part of the compared amount.
        talkers.talk(16_000_000);
        let before = talkers.echoed.clone();
        talkers.talk(64_000_000);
        let (most, fewest) = talkers.spread(&before);
        talkers.read_rest();
        drop(talkers);
        let (core, figures) = server.stop();
        println!("U6: {buffers} buffers, {most} and {fewest} bytes, {figures:?}");
        assert!(figures.starved > 0, "the pool was never empty: {figures:?}");
        assert!(most < 4 * fewest, "{most} bytes for one talker, {fewest} for another");
        assert!(figures.enters < 20 * core.sends, "it span: {} sends, {figures:?}", core.sends);
    }
}
