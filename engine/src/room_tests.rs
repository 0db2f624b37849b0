//! Room, with integers for nodes.

use super::*;
use proptest::prelude::*;

fn request(cpus: u32, memory: u64, gpus: u32, tags: &[(&str, u32)]) -> Request {
    let tags = tags.iter().map(|(tag, count)| ((*tag).to_owned(), *count)).collect();
    Request { cpus: NonZeroU32::new(cpus).unwrap(), memory, gpus, tags }
}

fn capacities() -> Capacities {
    Capacities { memory: Some(100), gpus: 1, tags: [("licence".to_owned(), 2)].into() }
}

fn room(requests: &[Request], cpus: u32) -> Room {
    Room::new(requests, cpus, &capacities()).unwrap()
}

#[test]
fn nothing_is_taken_twice() {
    for one in
        [request(1, 60, 0, &[]), request(1, 0, 1, &[]), request(1, 0, 0, &[("database", 1)]), request(3, 0, 0, &[])]
    {
        let mut room = room(&[one.clone(), one.clone()], 4);
        let seat = room.enter(0).unwrap();
        assert!(room.enter(1).is_none(), "{one:?}");
        room.leave(seat);
        assert!(room.enter(1).is_some(), "{one:?}");
    }
}

#[test]
fn there_is_as_much_of_a_tag_as_was_said_and_else_one() {
    let two = request(1, 0, 0, &[("licence", 1)]);
    let mut room = room(&[two.clone(), two.clone(), two], 4);
    let _seats = [room.enter(0).unwrap(), room.enter(1).unwrap()];
    assert!(room.enter(2).is_none());
}

#[test]
fn memory_counts_for_nothing_unless_there_is_a_number() {
    let vast = request(1, u64::MAX, 0, &[]);
    let mut room = Room::new(&[vast.clone(), vast], 4, &Capacities::default()).unwrap();
    let _seats = [room.enter(0).unwrap(), room.enter(1).unwrap()];
    assert!(room.is_simple(0));
}

#[test]
fn a_node_that_asks_for_more_cpus_than_there_are_takes_all() {
    let mut room = room(&[request(9, 0, 0, &[]), request(1, 0, 0, &[])], 4);
    let seat = room.enter(0).unwrap();
    assert!(room.enter(1).is_none());
    room.leave(seat);
    let _seat = room.enter(1).unwrap();
}

#[test]
fn all_nodes_that_ask_for_too_much_are_named() {
    let requests = [
        request(1, 101, 0, &[]),
        request(4, 100, 1, &[("licence", 2)]),
        request(1, 0, 2, &[]),
        request(1, 0, 0, &[("database", 2)]),
    ];
    let excess = Room::new(&requests, 4, &capacities()).map(drop).unwrap_err();
    let told: Vec<_> = excess.iter().map(|(n, e)| (*n, e.resource.as_str(), e.requested, e.capacity)).collect();
    assert_eq!(told, [(0, "memory", 101, 100), (2, "gpus", 2, 1), (3, "database", 2, 1)]);
}

#[test]
fn of_those_that_fit_the_highest_priority_goes_first() {
    let requests = [request(4, 0, 0, &[]), request(1, 0, 0, &[]), request(1, 0, 0, &[]), request(1, 0, 0, &[])];
    let mut room = room(&requests, 4);
    let _first = room.enter(1).unwrap();
    for (node, priority) in [(0, 9), (2, 1), (3, 5)] {
        room.wait(node, priority);
    }
    let (next, _seat) = room.call().unwrap();
    assert_eq!(next, 3);
}

/// Small nodes that come and go, as many as the cpus at any time, while a big one waits: gives how many began before it.
fn overtakers(cpus: u32) -> u64 {
    let mut requests = vec![request(1, 0, 0, &[]); 200];
    requests.push(request(cpus, 0, 0, &[]));
    let big = requests.len() - 1;
    let mut room = room(&requests, cpus);
    let mut running: VecDeque<Seat> = (0..cpus as usize).map(|node| room.enter(node).unwrap()).collect();
    room.wait(big, 0);
    for (began, node) in (cpus as usize..).enumerate() {
        room.leave(running.pop_front().expect("something runs"));
        match room.call() {
            Some((next, _seat)) => {
                assert_eq!(next, big);
                return room.entered - u64::from(cpus) - 1;
            }
            None => running.extend(room.enter(node)),
        }
        assert!(began < 100);
    }
    unreachable!("nodes without end")
}

#[test]
fn a_big_node_is_overtaken_so_often_and_no_more() {
    for cpus in 2..9 {
        assert_eq!(overtakers(cpus), OVERTAKEN);
    }
}

#[test]
fn nothing_goes_ahead_of_one_that_waits_or_beside_one_that_is_big() {
    let mut requests = vec![request(1, 0, 0, &[]); 8];
    requests.push(request(2, 0, 0, &[]));
    let mut room = room(&requests, 2);
    let mut seats: Vec<Seat> = (0..5).map(|node| room.enter_ahead(node, 3).unwrap()).collect();
    assert!(room.enter_ahead(5, 3).is_none());
    assert!(room.enter(8).is_none());
    room.wait(8, 0);
    room.leave(seats.pop().unwrap());
    assert!(room.enter_ahead(5, 3).is_none());
    seats.drain(1..).for_each(|seat| room.leave(seat));
    assert!(room.call().is_none());
    room.leave(seats.pop().unwrap());
    let (big, seat) = room.call().unwrap();
    assert_eq!((big, room.enter_ahead(6, 3).is_none()), (8, true));
    room.leave(seat);
    assert!(room.enter_ahead(6, 3).is_some());
}

#[test]
fn a_room_that_is_given_up_has_nobody_waiting() {
    let mut room = room(&[request(2, 0, 0, &[]), request(2, 0, 0, &[])], 2);
    let seat = room.enter(0).unwrap();
    room.wait(1, 0);
    assert_eq!(room.give_up(), [1]);
    room.leave(seat);
    assert!(room.call().is_none());
}

fn any_request() -> impl Strategy<Value = Request> {
    let simple = Just(Request::default());
    let any = (1..=4u32, 0..=100u64, 0..=1u32, 0..=2u32, 0..=1u32).prop_map(|(cpus, memory, gpus, licence, lock)| {
        request(cpus, memory, gpus, &[("licence", licence), ("lock", lock)])
    });
    prop_oneof![simple, any]
}

/// What runs on threads: the first of the queue, as many as there are cpus.
fn used(requests: &[Request], running: &[usize]) -> [u64; 5] {
    let mut used = [0; 5];
    for request in running.iter().map(|node| &requests[*node]) {
        used[0] += u64::from(request.cpus.get());
        used[1] += request.memory;
        used[2] += u64::from(request.gpus);
        used[3] += u64::from(*request.tags.get("licence").unwrap_or(&0));
        used[4] += u64::from(*request.tags.get("lock").unwrap_or(&0));
    }
    used
}

proptest! {
    #[test]
    fn nothing_is_oversubscribed_and_every_node_gets_its_turn(
        requests in proptest::collection::vec(any_request(), 1..80),
        priorities in proptest::collection::vec(0..5u64, 80),
        lead in 0..4u64,
        choices in proptest::collection::vec((any::<proptest::sample::Index>(), any::<bool>()), 1..50),
    ) {
        let mut room = room(&requests, 4);
        let mut choices = choices.into_iter().cycle();
        let mut next = 0;
        // Handed out, in order: a thread takes the first that no other has taken.
        let (mut handed, mut ended): (Vec<(usize, Seat)>, usize) = (Vec::new(), 0);
        let mut waits: BTreeMap<usize, (u64, usize)> = BTreeMap::new();
        let mut began = 0;
        while ended < requests.len() {
            let (index, start) = choices.next().expect("endless");
            let (before, mut parked) = (handed.len(), false);
            if start || handed.is_empty() {
                if let Some((node, seat)) = room.call() {
                    let (since, among) = waits.remove(&node).expect("it waited");
                    prop_assert!(began - since <= OVERTAKEN + among as u64);
                    handed.push((node, seat));
                } else if next < requests.len() && (room.is_open() || room.is_open_ahead(lead)) {
                    match room.enter_ahead(next, lead) {
                        Some(seat) => handed.push((next, seat)),
                        None => {
                            room.wait(next, priorities[next]);
                            waits.insert(next, (began, waits.len()));
                        }
                    }
                    next += 1;
                    parked = handed.len() == before;
                }
            }
            if handed.len() == before && !parked {
                prop_assert!(!handed.is_empty(), "nobody runs and nobody may");
                let (_, seat) = handed.remove(index.index(handed.len().min(4)));
                room.leave(seat);
                ended += 1;
            }
            began += u64::from(handed.len() > before);
            let running: Vec<usize> = handed.iter().take(4).map(|(node, _)| *node).collect();
            let used = used(&requests, &running);
            prop_assert!(used.iter().zip([4, 100, 1, 2, 1]).all(|(used, capacity)| *used <= capacity), "{used:?}");
        }
        prop_assert!(waits.is_empty() && room.call().is_none());
    }
}
