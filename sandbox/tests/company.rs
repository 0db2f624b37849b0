//! Bounded programs that make sockets, and such that make none: who is said to have been alone, and that all go on.

mod place;

use std::os::unix::net::{UnixDatagram, UnixListener};
use std::time::Duration;

use headwater_sandbox::{Bounds, Ending, Order, Twin};

use place::Place;

fn has_python() -> bool {
    std::process::Command::new("python3").arg("-c").arg("").status().is_ok_and(|status| status.success())
}

/// Whether a program that succeeds was alone.
fn alone(place: &Place, order: Order) -> bool {
    let report = place.run(&Order { timeout: Some(Duration::from_secs(30)), ..order });
    assert_eq!(report.ending, Ending::Code(0), "{}", place.printed());
    report.alone
}

fn python(place: &Place, line: &str) -> Order {
    let mut order = place.bounded(&format!("python3 -c 'import socket as s, os\n{line}'"));
    // Who does not know its home may ask a daemon for it, over a socket.
    order.environment.push(("HOME".into(), place.path("work").into()));
    order
}

#[test]
fn who_makes_no_socket_was_alone() {
    let place = Place::new();
    assert!(alone(&place, place.bounded("echo text > file; ls | cat; (sleep 1000 &)")));
}

#[test]
fn nobody_is_said_to_be_alone_who_has_the_network_or_no_bounds_or_is_watched() {
    let place = Place::new();
    let bounds = Some(Bounds { network: true, ..place.bounds() });
    assert!(!alone(&place, Order { bounds, ..place.order("true") }));
    assert!(!alone(&place, place.order("true")));
    let twin = Some(Twin { here: place.path("work").into(), there: place.path("all").into() });
    assert!(!alone(&place, Order { twin, ..place.bounded("true") }));
}

#[test]
fn whatever_makes_a_socket_that_can_reach_others_was_not_alone_and_reaches_them() {
    if !has_python() {
        return;
    }
    let place = Place::new();
    let stream = UnixListener::bind(place.path("work/stream")).expect("a socket");
    let datagrams = UnixDatagram::bind(place.path("work/datagrams")).expect("a socket");
    let lines = [
        "s.socket(s.AF_UNIX).connect(\"stream\")",
        "import threading as t; t.Thread(target=lambda: s.socket(s.AF_UNIX).connect(\"stream\")).start()",
        "if os.fork() == 0: os.setsid(); s.socket(s.AF_UNIX).connect(\"stream\"); os._exit(0)\nos.wait()",
        "s.socketpair(s.AF_UNIX, s.SOCK_DGRAM)[0].sendto(b\"x\", \"datagrams\")",
        "s.socketpair(s.AF_UNIX, s.SOCK_RAW)[0].connect(\"datagrams\")",
    ];
    for line in lines {
        assert!(!alone(&place, python(&place, line)), "{line}");
        assert!(alone(&place, place.bounded("true")), "the next one");
    }
    assert_eq!((0..3).filter(|_| stream.accept().is_ok()).count(), 3);
    assert_eq!(datagrams.recv(&mut [0; 8]).expect("a datagram"), 1);
}

#[test]
fn connected_pairs_reach_nobody_and_are_no_company() {
    if !has_python() {
        return;
    }
    let place = Place::new();
    let stream = UnixListener::bind(place.path("work/stream")).expect("a socket");
    stream.set_nonblocking(true).expect("set");
    for kind in ["s.SOCK_STREAM", "s.SOCK_SEQPACKET"] {
        let tries = format!(
            "a, b = s.socketpair(s.AF_UNIX, {kind})\na.send(b\"x\"); assert b.recv(1) == b\"x\"\n\
             for i in range(2):\n  try: a.connect(\"stream\"); os._exit(1)\n  except OSError: b.close()"
        );
        assert!(alone(&place, python(&place, &tries)), "{kind}");
    }
    assert!(stream.accept().is_err());
    let refused = "try: s.socket(s.AF_INET); os._exit(1)\nexcept PermissionError: pass";
    assert!(alone(&place, python(&place, refused)), "what is refused is no socket");
}

#[test]
fn a_program_that_cleans_up_when_it_is_told_to_end_has_sockets_still() {
    if !has_python() {
        return;
    }
    let place = Place::new();
    let line = "import signal, sys\n\
        def end(*_): s.socket(s.AF_UNIX).close(); print(\"cleaned\", flush=True); sys.exit(0)\n\
        signal.signal(signal.SIGTERM, end); signal.pause()";
    let report = place.run(&Order { timeout: Some(Duration::from_secs(1)), ..python(&place, line) });
    assert_eq!((report.ending, report.alone), (Ending::TimedOut, false));
    assert_eq!(place.printed(), "cleaned\n");
}

#[test]
fn a_bounded_program_that_is_not_there_is_told() {
    let place = Place::new();
    let report = place.run(&Order { program: "no-such-program".into(), ..place.bounded("") });
    assert_eq!(report.ending, Ending::NotStarted("No such file or directory (os error 2)".into()));
}
