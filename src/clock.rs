//! `WallClock`: time as a run of the engine sees it.
//!
//! It does not know what anybody waits for.

use std::time::{Duration, Instant};

use headwater_engine::Clock;

/// The time since some moment.
pub struct WallClock(pub Instant);

impl Clock for WallClock {
    fn now(&self) -> f64 {
        self.0.elapsed().as_secs_f64()
    }

    fn after(&self, seconds: f64, alarm: Box<dyn FnOnce() + Send>) {
        let pause = Duration::try_from_secs_f64(seconds).unwrap_or_default();
        // A thread that sleeps when its run has ended rings for nobody.
        std::thread::spawn(move || {
            std::thread::sleep(pause);
            alarm();
        });
    }
}
