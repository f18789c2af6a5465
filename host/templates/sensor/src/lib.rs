//! A sensor, which is asked again until it has seen enough, and a task after it.

use std::time::Duration;

use airtight_sdk::prelude::*;

#[data]
struct Wait {
    pokes: u32,
}

/// Is ready the n-th time that it is asked. Between two times it holds neither a slot nor memory; what it has to remember is
/// its checkpoint.
#[task]
fn ready(input: Wait) -> Result<Outcome<u32>> {
    let poke = checkpoint::load::<u32>()?.unwrap_or(0) + 1;
    if poke < input.pokes {
        checkpoint::save(&poke)?;
        info!("not yet, this was time {poke}");
        return Ok(Outcome::reschedule(Duration::from_secs(1)));
    }
    Ok(Outcome::Done(poke))
}

#[data]
struct Seen {
    pokes: u32,
}

/// Says how long it took.
#[task]
fn tell(input: Seen) -> String {
    format!("ready after {} pokes", input.pokes)
}

#[cfg(test)]
mod tests {
    use airtight_sdk::testing::TestHost;

    use super::*;

    #[test]
    fn is_ready_the_second_time() {
        let first = TestHost::new().install();
        assert!(matches!(ready(Wait { pokes: 2 }).unwrap(), Outcome::Reschedule(_)));
        let saved = first.checkpoint().unwrap();
        drop(first);
        let _second = TestHost::new().checkpoint(saved).install();
        assert!(matches!(ready(Wait { pokes: 2 }).unwrap(), Outcome::Done(2)));
    }
}
