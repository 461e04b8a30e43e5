//! When a loop may sleep and what a turn does with mail, with a core that records its inputs.

use std::collections::VecDeque;

use super::*;
use crate::driver::mailbox::Mailbox;
use crate::shard::Flush;

/// Records the senders of mail, in order, and returns outputs that a test queued.
#[derive(Default)]
struct Noting {
    mail_from: Vec<u16>,
    outputs: VecDeque<Output>,
    timeout: Option<u64>,
}

impl Core for Noting {
    fn handle_input(&mut self, _now: Moment, input: Input<'_>) {
        if let Input::Mail { from, .. } = input {
            self.mail_from.push(from);
        }
    }
    fn poll_output(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }
    fn poll_flush(&mut self) -> Option<Flush<'_>> {
        None
    }
    fn lent(&self, _connection: ConnectionKey) -> &[u8] {
        &[]
    }
    fn poll_timeout(&self) -> Option<u64> {
        self.timeout
    }
    fn is_drained(&self) -> bool {
        false
    }
}

/// The turns of shard 0 of two, and all mailboxes.
fn turn(slots: usize) -> (Turn, Arc<[Mailbox<Mail>]>) {
    let mailboxes: Arc<[Mailbox<Mail>]> = (0..2).map(|_| Mailbox::new(slots).expect("an eventfd")).collect();
    let mut setup = ShardSetup {
        index: 0,
        listeners: Vec::new(),
        mailboxes: Arc::clone(&mailboxes),
        control: Arc::new(Control::new(Arc::clone(&mailboxes))),
        clock: Clock::start(),
        slots: 1,
        refusal_slots: 0,
        zero_copy_bytes_min: None,
        host: Box::new(NoHost),
    };
    (Turn::new(&mut setup), mailboxes)
}

fn run(turn: &mut Turn, core: &mut Noting) {
    turn.begin(core);
    assert_eq!(turn.poll_effect(core), None);
    assert_eq!(turn.end(core), Next::Turn);
}

/// While mail waits for mailbox space the loop sleeps only briefly: it gets no notification when space becomes
/// available (`MAIL_RETRY_MS`). Without this, a full mailbox would end in two loops that wait for each other.
#[test]
fn waiting_mail_shortens_the_sleep() {
    let (mut turn, mailboxes) = turn(1);
    let mut core = Noting::default();
    run(&mut turn, &mut core);
    assert_eq!(turn.sleep(&core), Wait::Forever);
    core.outputs.extend((0..2).map(|_| Output::Mail { to: 1, mail: Mail::any() }));
    run(&mut turn, &mut core);
    assert_eq!(turn.figures.mails_waiting, 1);
    assert_eq!(turn.sleep(&core), Wait::AtMost(MAIL_RETRY_MS));
    core.timeout = Some(u64::MAX);
    assert_eq!(turn.sleep(&core), Wait::AtMost(MAIL_RETRY_MS), "a later timeout changes nothing");
    core.timeout = Some(0);
    assert_eq!(turn.sleep(&core), Wait::No, "a timeout that is due does");
    core.timeout = None;
    assert!(mailboxes[1].pop().is_some());
    run(&mut turn, &mut core);
    assert!(mailboxes[1].pop().is_some(), "what waited went out at the end of a turn without other mail");
    assert_eq!(turn.sleep(&core), Wait::Forever);
}

/// Mail that arrived before the sleep was announced prevents it; afterwards its sender sees the announcement, and the
/// next turn withdraws it.
#[test]
fn mail_prevents_or_ends_the_sleep() {
    let (mut turn, mailboxes) = turn(4);
    let mut core = Noting::default();
    run(&mut turn, &mut core);
    mailboxes[0].push(1, Mail::any()).expect("room");
    assert_eq!(turn.sleep(&core), Wait::No);
    run(&mut turn, &mut core);
    assert_eq!(core.mail_from, [1]);
    assert_eq!(turn.sleep(&core), Wait::Forever);
    mailboxes[0].push(1, Mail::any()).expect("room");
    assert!(mailboxes[0].wake_if_sleeping(), "the sleep was announced");
    assert_eq!(turn.sleep(&core), Wait::No);
    run(&mut turn, &mut core);
    assert_eq!(turn.sleep(&core), Wait::Forever);
    turn.begin(&mut core);
    assert!(!mailboxes[0].wake_if_sleeping(), "a loop that is up needs no wake");
    assert_eq!(core.mail_from, [1, 1]);
}

/// One turn takes mail up to its bound, in arrival order, and does not sleep while some is left.
#[test]
fn a_turn_takes_mail_up_to_its_bound() {
    let (mut turn, mailboxes) = turn(MAIL_PER_TURN + 10);
    let mut core = Noting::default();
    run(&mut turn, &mut core);
    for number in 0..MAIL_PER_TURN + 10 {
        mailboxes[0].push(u16::try_from(number % 1_000).expect("small"), Mail::any()).expect("room");
    }
    run(&mut turn, &mut core);
    assert_eq!(core.mail_from.len(), MAIL_PER_TURN);
    assert_eq!(turn.figures.mailbox_depth, 10);
    assert_eq!(turn.sleep(&core), Wait::No);
    run(&mut turn, &mut core);
    let numbers = (0..MAIL_PER_TURN + 10).map(|number| (number % 1_000) as u16);
    assert!(core.mail_from.iter().copied().eq(numbers), "mail is fed in the order in which it came");
}

/// The mail of one turn is sent in the order of the outputs, and its target is woken once, at the end.
#[test]
fn mail_goes_out_in_order_at_the_end() {
    let (mut turn, mailboxes) = turn(8);
    let mut core = Noting::default();
    assert_eq!(mailboxes[1].prepare_sleep(), Sleep::Announced);
    core.outputs.extend((0..3).map(|_| Output::Mail { to: 1, mail: Mail::any() }));
    turn.begin(&mut core);
    assert_eq!(turn.poll_effect(&mut core), None);
    assert_eq!((mailboxes[1].len(), turn.figures.mails_sent), (3, 3));
    assert_eq!(turn.end(&mut core), Next::Turn);
    assert!(!mailboxes[1].wake_if_sleeping(), "the end of the turn woke it");
}

/// Mail is sent and received while the process drains: shards still have departures and answers for each other.
#[test]
fn a_drain_stops_no_mail() {
    let (mut turn, mailboxes) = turn(4);
    let mut core = Noting::default();
    turn.control.drain();
    core.outputs.extend((0..2).map(|_| Output::Mail { to: 1, mail: Mail::any() }));
    mailboxes[0].push(1, Mail::any()).expect("room");
    run(&mut turn, &mut core);
    assert_eq!((turn.drain, mailboxes[1].len(), core.mail_from), (Drain::Fed, 2, vec![1]));
}
