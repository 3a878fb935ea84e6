//! Memory for prompts: as many at once as there is room for.

use anyhow::Result;
use descant_kernels::Keep;
use descant_model::{Config, Placement};
use descant_train::memory::{Asking, estimate_asking};

use super::found::Found;
use super::refusal::refusal;
use crate::command::load::Chosen;

/// Where the weights lie so that prompts can be answered within a limit, or within what is free, and how many at once:
/// as many as are wanted, or fewer where those do not fit. Refuses where one alone does not. So many processes of this
/// host do so.
pub(crate) fn place_for_asking(
    device: &Chosen,
    limit: Option<u64>,
    config: &Config,
    wanted: Asking,
    of_host: usize,
) -> Result<(Placement, Asking)> {
    let found = Found::on(device, limit, Keep::Auto).among(of_host, of_host);
    let arranged = |asking: Asking, host: Option<u64>| {
        found.arranged(config, 1, host, |place| anyhow::Ok(estimate_asking(config, asking, place)))
    };
    let asking = most_at_once(wanted, |asking| {
        arranged(asking, found.host).is_ok_and(|(_, needs)| found.fits(&needs))
    });
    let (arrangement, needs) = arranged(asking, found.host)?;
    let with_more_host = arranged(asking, None)?.1;
    if found.host.is_some() && !found.fits(&needs) && found.fits(&with_more_host) {
        return Err(refusal(&needs, found.free, device, &found.lacking_on_host(&with_more_host)));
    }
    found.refuse_with(
        &needs,
        device,
        "raise the limit, ask shorter prompts or sequences, or allow fewer new tokens",
    )?;
    Ok((arrangement.placement, asking))
}

/// As many prompts at once as fit, out of those that are wanted; one where none do.
pub(super) fn most_at_once(wanted: Asking, fits: impl Fn(Asking) -> bool) -> Asking {
    let of = |batch: u64| Asking { batch, ..wanted };
    // More never need less.
    let (mut most, mut too_many) = (1, wanted.batch + 1);
    while most + 1 < too_many {
        let middle = most.midpoint(too_many);
        if fits(of(middle)) {
            most = middle;
        } else {
            too_many = middle;
        }
    }
    of(most.min(wanted.batch))
}

/// For people.
pub(crate) fn fewer_at_once(asking: Asking, wanted: Asking) -> String {
    format!("held-out prompts {} at a time in place of {}: more do not fit", asking.batch, wanted.batch)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn as_many_prompts_are_asked_at_once_as_fit() {
        let wanted = Asking { batch: 100, tokens: 6000, scored: 0 };
        let most = |room: u64| most_at_once(wanted, |asking| asking.batch * asking.tokens <= room).batch;
        assert_eq!(most(u64::MAX), 100);
        assert_eq!(most(100 * 6000), 100);
        assert_eq!(most(100 * 6000 - 1), 99);
        assert_eq!(most(37 * 6000 + 5), 37);
        // Where not even one fits that one is what is said not to.
        assert_eq!((most(6000), most(0)), (1, 1));
        let none = Asking { batch: 1, ..wanted };
        assert_eq!(most_at_once(none, |_| false).batch, 1);
    }
}
