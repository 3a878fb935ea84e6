//! `descant doctor`: what this machine has for a run, a line for each, and what to do where something is missing.
//!
//! It changes nothing. It opens a socket only to ask whether the hub answers, only where the network is allowed, and
//! it never shows the token. With `--model` it also loads a base and looks at its own loss.

use anyhow::Result;
use descant_kernels::Keep;
use descant_train::memory::Asking;
use serde_json::json;

use super::room::place_for_asking;
use super::{load, preflight};
use crate::cli::Doctor;
use crate::failure::Exit;
use crate::hub::Places;
use crate::published;
use crate::talk::Talk;
use crate::wrap::hanging;

mod cards;
mod check;
mod hub;
mod machine;

pub(crate) use cards::driver;
use check::{Check, State};

/// Version of the JSON object.
const VERSION: u32 = 1;

/// Looks at everything and prints. The status says whether something must be mended.
pub(crate) fn run(args: &Doctor, talk: Talk) -> Result<Exit> {
    let places = Places::new(true, args.offline, talk);
    let mut checks = machine::checks();
    checks.extend(cards::checks());
    checks.extend(hub::checks(&places));
    if let Some(model) = &args.model {
        checks.push(base(args, model, talk)?);
    }
    let is_good = checks.iter().all(|check| check.state != State::Bad);
    if args.json {
        let all: Vec<_> = checks.iter().map(Check::to_json).collect();
        talk.data(json!({"schema_version": VERSION, "ok": is_good, "checks": all}))?;
    } else {
        print(&checks, talk)?;
    }
    Ok(if is_good { Exit::Success } else { Exit::No })
}

fn print(checks: &[Check], talk: Talk) -> Result<()> {
    let (width, utf8) = (talk.data_width(), talk.shows_utf8());
    for check in checks {
        let text = format!("{} {}", check.state.mark(utf8), check.text);
        talk.data(hanging(check.name, &text, width))?;
        if let Some(todo) = &check.todo {
            talk.data(hanging("", &format!("{} {todo}", if utf8 { "→" } else { "->" }), width))?;
        }
    }
    Ok(())
}

/// A base's own loss, on real weights.
fn base(args: &Doctor, model: &str, talk: Talk) -> Result<Check> {
    let setting = published::model_setting(model)?;
    let dir = Places::new(false, true, talk).directory(setting.as_ref())?;
    load::check_dir(&dir)?;
    let device = load::said_device(&args.device.name, talk)?;
    let asking = Asking { batch: 1, tokens: preflight::LONGEST, scored: 0 };
    let limit = args.memory.bytes();
    let (placement, _) = place_for_asking(&device, limit, &load::config(&dir)?, asking, 1)?;
    let model = load::model(&dir, &device.device, placement, (limit, Keep::Auto))?;
    let renderer = load::renderer_of(&dir)?;
    let formats = model.formats().to_string();
    Ok(match preflight::measure(&model, &renderer)? {
        None => Check::note(
            "base",
            format!(
                "not checked: a model with a vocabulary of {} may not know English",
                model.config.vocab_size
            ),
            json!({"vocabulary": model.config.vocab_size, "weights": formats}),
        ),
        Some(read) => {
            let facts = json!({
                "conversations_nats": finite(read.conversations),
                "plain_text_nats": finite(read.plain),
                "limit_nats": preflight::LIMIT,
                "weights": formats,
            });
            let check = Check::ok("base", read.words(), facts);
            if read.is_good() { check } else { check.bad(read.diagnosis()) }
        }
    })
}

/// JSON has no other numbers.
fn finite(value: f64) -> Option<f64> {
    value.is_finite().then_some(value)
}
