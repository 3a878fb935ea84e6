//! Renders a conversation and shows which tokens are trained:
//!
//! ```sh
//! cargo run -p descant-harmony --example render_and_mask
//! cargo run -p descant-harmony --example render_and_mask -- MODEL_DIR final_only
//! ```
#![allow(clippy::print_stdout, reason = "an example shows what it made")]

use std::error::Error;
use std::path::Path;

use descant_harmony::preview::{Run, runs};
use descant_harmony::{
    Conversation, LossWeights, MaskPolicy, Masker, Message, RenderOptions, Renderer, Role,
};

const MODEL: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../fixtures/tiny-gpt-oss");

fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let model = arguments.next().unwrap_or_else(|| MODEL.to_owned());
    let policy = match arguments.next().as_deref() {
        None | Some("assistant") => MaskPolicy::Assistant,
        Some("final_only") => MaskPolicy::FinalOnly,
        Some("everything") => MaskPolicy::Everything,
        Some(other) => return Err(format!("no such mask: {other}").into()),
    };
    for run in render(Path::new(&model), policy)? {
        println!(
            "{} {:>8} {:?}",
            if run.trained { "trained" } else { "       " },
            run.class.as_str(),
            run.text
        );
    }
    Ok(())
}

/// Runs of tokens with the same class and the same fate.
fn render(model: &Path, policy: MaskPolicy) -> Result<Vec<Run>, Box<dyn Error>> {
    let conversation = Conversation::new(vec![
        Message::text(Role::Developer, "reasoning language: French"),
        Message::text(Role::User, "What is 2 + 2?"),
        Message::assistant(Some("Deux et deux font quatre.".to_owned()), "4"),
    ]);
    let renderer = Renderer::load(model, None)?;
    let rendered = renderer.render(&conversation, &RenderOptions::default())?;
    let masker = Masker::new(renderer.tokenizer(), policy, LossWeights::default())?;
    let mask = masker.mask(&rendered, 0)?;
    Ok(runs(renderer.tokenizer(), &rendered.ids, &mask)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_example_trains_reasoning_and_answer() {
        main().unwrap();
        let trained = |policy| {
            let runs = render(Path::new(MODEL), policy).unwrap();
            runs.into_iter().filter(|run| run.trained).map(|run| run.text).collect::<String>()
        };
        assert!(trained(MaskPolicy::Assistant).contains("quatre"));
        assert!(!trained(MaskPolicy::FinalOnly).contains("quatre"));
    }
}
