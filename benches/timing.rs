//! Does the time of a comparison reveal how much of a guess is right (threat T2)?
//!
//! Method, after "Dude, is my code constant time?" (Reparaz, Balasch, Verbauwhede, 2017): two classes of wrong proofs,
//! wrong in their first and in their last digit, in random order; Welch's t over the times, without the slowest
//! hundredth, which the machine causes. |t| below 4.5 after a million samples means that no difference was found. A
//! comparison that stops at the first difference is measured too, to show the result when there is one.

#![allow(missing_docs)]

use std::hint::black_box;
use std::time::Instant;

use hmac::{Hmac, KeyInit, Mac};
use relay::app::{App, AppKey, AppSerial, AppSettings, Secret};
use relay::auth::subscription::verify_subscription;

const KEY: &str = "278d425bdf160c739803";
const SECRET: &str = "7ad3773142a6692b25b8";
const SOCKET: &str = "1234567890123456789.987654321";
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
        encryption_master_key: None,
        settings: AppSettings::default(),
        webhooks: Default::default(),
    };
    // A channel whose signature begins and ends with a decimal digit, which is still a digit with its lowest bit
    // flipped.
    let (channel, auth) = (0..)
        .map(|number| format!("private-order-{number}"))
        .find_map(|channel| {
            let mut mac = Hmac::<sha2::Sha256>::new_from_slice(SECRET.as_bytes()).expect("any length");
            mac.update(format!("{SOCKET}:{channel}").as_bytes());
            let digest = hex::encode(mac.finalize().into_bytes());
            let ends = [digest.as_bytes()[0], digest.as_bytes()[63]];
            ends.iter().all(u8::is_ascii_digit).then(|| (channel, format!("{KEY}:{digest}")))
        })
        .expect("some signature is such");
    assert!(verify_subscription(&app, SOCKET, &channel, None, &auth).is_ok());
    let check = |auth: &str| verify_subscription(&app, SOCKET, &channel, None, auth).is_ok();
    measure(&auth, KEY.len() + 1, check)
}

fn secret() -> Vec<(bool, f64)> {
    let secret = Secret::new(SECRET);
    assert!(secret.matches(SECRET.as_bytes()));
    measure(SECRET, 0, |guess| secret.matches(guess.as_bytes()))
}

fn naive() -> Vec<(bool, f64)> {
    let right = SECRET.repeat(10);
    let same = |guess: &str| guess.bytes().zip(right.bytes()).all(|(one, other)| black_box(one) == other);
    measure(&right, 0, same)
}

/// Times the check on the right text with one bit wrong, in its first byte from `start` on or in its last, in an order
/// that is independent of everything else on the machine. The two classes differ in nothing else, not even in how they
/// are made.
fn measure(right: &str, start: usize, check: impl Fn(&str) -> bool) -> Vec<(bool, f64)> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut times = Vec::with_capacity(SAMPLES);
    let last = right.len() - 1;
    for _ in 0..SAMPLES {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        let class = state & 1 == 1;
        let mut input = right.as_bytes().to_vec();
        input[start] ^= u8::from(class);
        input[last] ^= u8::from(!class);
        let input = String::from_utf8(input).expect("ASCII");
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
