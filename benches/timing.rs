//! Does the time of a comparison tell how much of a guess is right (threat T2)?
//!
//! Method, after "Dude, is my code constant time?" (Reparaz, Balasch, Verbauwhede, 2017): two classes of wrong proofs,
//! wrong in their first and in their last digit, in random order; Welch's t over the times, with the slowest hundredth
//! left out, which is the machine's doing. |t| below 4.5 after a million samples means that no difference was found. A
//! comparison that stops at the first difference stands beside them, to show what is found when there is one.

#![allow(missing_docs)]

use std::hint::black_box;
use std::time::Instant;

use hmac::{Hmac, KeyInit, Mac};
use relay::app::{App, AppKey, AppSerial, AppSettings, Secret};
use relay::auth::subscription::verify_subscription;

const KEY: &str = "278d425bdf160c739803";
const SECRET: &str = "7ad3773142a6692b25b8";
const SOCKET: &str = "1234567890123456789.987654321";
const CHANNEL: &str = "private-order-42";
const SAMPLES: usize = 1_000_000;

fn main() {
    report("subscription signature", &signature());
    report("app secret", &secret());
    report("naive comparison", &naive());
}

fn report(name: &str, times: &[(bool, f64)]) {
    println!("{name:<24} t = {:>8.2} after {} samples", welch_t(times), times.len());
}

fn signature() -> Vec<(bool, f64)> {
    let app = App {
        serial: AppSerial(1),
        id: "3".into(),
        name: "timing".into(),
        enabled: true,
        keys: vec![AppKey::new(KEY, SECRET)],
        settings: AppSettings::default(),
    };
    let mut mac = Hmac::<sha2::Sha256>::new_from_slice(SECRET.as_bytes()).expect("any length");
    mac.update(format!("{SOCKET}:{CHANNEL}").as_bytes());
    let auth = format!("{KEY}:{}", hex::encode(mac.finalize().into_bytes()));
    assert!(verify_subscription(&app, SOCKET, CHANNEL, None, &auth).is_ok());
    measure(&wrong(&auth, KEY.len() + 1), |auth| verify_subscription(&app, SOCKET, CHANNEL, None, auth).is_ok())
}

fn secret() -> Vec<(bool, f64)> {
    let secret = Secret::new(SECRET);
    assert!(secret.matches(SECRET.as_bytes()));
    measure(&wrong(SECRET, 0), |guess| secret.matches(guess.as_bytes()))
}

fn naive() -> Vec<(bool, f64)> {
    let right = SECRET.repeat(10);
    let same = |guess: &str| guess.bytes().zip(right.bytes()).all(|(one, other)| black_box(one) == other);
    measure(&wrong(&right, 0), same)
}

/// Two copies of a text, wrong in the first of its bytes from `start` on, and in the last.
fn wrong(right: &str, start: usize) -> [String; 2] {
    [start, right.len() - 1].map(|at| {
        let mut bytes = right.as_bytes().to_vec();
        bytes[at] = if bytes[at] == b'0' { b'1' } else { b'0' };
        String::from_utf8(bytes).expect("ASCII")
    })
}

/// Times the check on inputs of either class, in an order that nothing else on the machine follows.
fn measure(inputs: &[String; 2], check: impl Fn(&str) -> bool) -> Vec<(bool, f64)> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut times = Vec::with_capacity(SAMPLES);
    for _ in 0..SAMPLES {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        let class = state & 1 == 1;
        // Read from the same place for both classes, so that the cache does not tell them apart.
        let input = inputs[usize::from(class)].clone();
        let started = Instant::now();
        let passed = black_box(check(black_box(&input)));
        times.push((class, started.elapsed().as_nanos() as f64));
        assert!(!passed);
    }
    times
}

/// Welch's t of the two classes, without the slowest hundredth of all times.
fn welch_t(times: &[(bool, f64)]) -> f64 {
    let mut sorted: Vec<f64> = times.iter().map(|(_, time)| *time).collect();
    sorted.sort_by(f64::total_cmp);
    let slowest = sorted[sorted.len() * 99 / 100];
    let moments = |class: bool| {
        let kept = times.iter().filter(|(of, time)| *of == class && *time <= slowest).map(|(_, time)| *time);
        let (count, sum, squares) =
            kept.fold((0.0, 0.0, 0.0), |(count, sum, squares), time| (count + 1.0, sum + time, squares + time * time));
        let mean = sum / count;
        (mean, (squares / count - mean * mean) / count)
    };
    let ((mean, error), (other_mean, other_error)) = (moments(false), moments(true));
    (mean - other_mean) / (error + other_error).sqrt()
}
