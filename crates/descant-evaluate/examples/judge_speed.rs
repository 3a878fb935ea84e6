//! Replies that the judge takes a second, on one core: `cargo run --release -p descant-evaluate --example judge_speed`.

use std::time::Instant;

use descant_evaluate::{Answer, Asked, Detector, Language, judge};
use descant_harmony::{TextEncoder as _, Tokenizer};

const REASONING: &str = "Il faut d'abord compter les œufs que les canes pondent chaque jour. Elles en pondent \
    seize, et Janet en mange trois au petit déjeuner. Elle en utilise encore quatre pour les muffins de ses amis. \
    Il reste donc seize moins trois moins quatre, ce qui fait neuf œufs. Chaque œuf est vendu deux dollars au \
    marché fermier. Neuf œufs à deux dollars donnent dix-huit dollars par jour. Je vérifie encore une fois le \
    calcul, et il est juste.";

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let tokenizer = Tokenizer::gpt_oss()?;
    let detector = Detector::new(&[]);
    let reply = format!(
        "<|channel|>analysis<|message|>{REASONING}<|end|><|start|>assistant<|channel|>final<|message|>Janet gagne **18** \
         dollars par jour au marché fermier.<|return|>"
    );
    let ids = tokenizer.encode_rendered(&reply)?;
    let answer = Answer::from_json(&serde_json::json!({"kind": "number", "value": "18"}))?;
    let asked = Asked {
        prompt: "Janet’s ducks lay 16 eggs per day. She eats three for breakfast every morning.",
        language: Language::from_code("fr"),
        answer_language: Language::from_code("fr"),
        answer: &answer,
        tools: &[],
    };
    let first = judge(&ids, asked, &tokenizer, &detector);
    if !(first.hit && first.right == Some(true)) {
        return Err(format!("a wrong verdict: {first:?}").into());
    }
    let started = Instant::now();
    let rounds = if cfg!(debug_assertions) { 50 } else { 2000 };
    for _ in 0..rounds {
        std::hint::black_box(judge(&ids, asked, &tokenizer, &detector));
    }
    let rate = f64::from(rounds) / started.elapsed().as_secs_f64();
    #[expect(clippy::print_stdout, reason = "an example")]
    {
        println!("{rate:.0} replies a second, of {} characters each", reply.chars().count());
    }
    Ok(())
}
