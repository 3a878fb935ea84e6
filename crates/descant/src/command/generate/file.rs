//! `--input FILE --out FILE`: the conversations of a data set with new replies, as rows that can be trained on.
//!
//! Rows are written in the order of what is asked, so the file of a command that was interrupted is a beginning of the
//! whole one, and the same command continues after it. Each row says by a hash how it was made: a row that this command
//! would make otherwise is an error, not a mixture.

use std::path::Path;
use std::time::Instant;

use anyhow::{Context as _, Result, anyhow};
use descant_evaluate::{Question, Suite};
use descant_files::{Appender, sha256};
use descant_harmony::{Conversation, Date, Renderer, TextEncoder as _};
use descant_model::Generated;
use serde_json::{Map, Value as Json, json};

use super::asked::{Asked, EFFORT};
use super::asking::{Here, answer_each, sides, speaker, speaks};
use crate::cli::Generate;
use crate::command::speaker::prompt_ids;
use crate::failure::{Exit, Hinted};
use crate::reply::Turn;
use crate::talk::Talk;
use crate::words::counted;

/// Longest file of replies that is resumed.
const LIMIT: u64 = 16 << 30;

/// A reply that is wanted, and what its row begins with.
struct Wanted {
    asked: Asked,
    id: String,
    conversation: Conversation,
    /// How its row is made, as a hash.
    made: String,
}

/// Asks what is missing. Of several processes rank 0 has the file.
pub(super) fn run(
    args: &Generate,
    dir: &Path,
    renderer: &Renderer,
    date: Date,
    (input, out): (&Path, &Path),
    here: &Here<'_>,
    talk: Talk,
) -> Result<Exit> {
    let suite = Suite::from_file(input)?;
    for (key, count) in &suite.unknown {
        talk.warn(format_args!(
            "{}: `{key}` is in {} and has no effect",
            input.display(),
            counted(*count, "place")
        ));
    }
    let how = how(args, dir, renderer)?;
    let wanted = wanted(args, &suite, renderer, date, &how)?;
    let is_first = here.is_first();
    let begun = if is_first { Some(begin(out, &wanted, args.force)?) } else { None };
    let (mut file, done) = begun.map_or((None, None), |(file, done)| (Some(file), Some(done)));
    let done = match here.team {
        Some(team) => team.tell("replies that exist", done)?,
        None => done.unwrap_or(0),
    };
    talk.item(
        "prompts",
        format_args!("{} of {}", counted(suite.questions.len() as u64, "conversation"), input.display()),
    );
    if done > 0 {
        talk.item("resumed", format_args!("{done} of {} replies already exist", wanted.len()));
    }
    let missing = wanted.get(done..).context("rank 0 has more replies than are asked for here")?;
    if !missing.is_empty() {
        let asked: Vec<Asked> = missing.iter().map(|wanted| wanted.asked.clone()).collect();
        let speaker = speaker(args, dir, &asked, here, talk)?;
        let (started, mut tokens) = (Instant::now(), 0);
        let mut keep = |at: usize, reply: &Generated| -> Result<()> {
            let Some(file) = &mut file else { return Ok(()) };
            tokens += reply.ids.len();
            let ready = done + at + 1;
            file.append(&row(&missing[at], reply, renderer)?.to_string())?;
            if at + 1 == missing.len() || (at + 1).is_multiple_of(args.batch) {
                file.sync()?;
                if talk.shows_progress() {
                    let speed = tokens as f64 / started.elapsed().as_secs_f64();
                    talk.item("replies", format_args!("{ready} of {}, {speed:.0} tokens/s", wanted.len()));
                }
            }
            Ok(())
        };
        answer_each(args, &speaker, &asked, here, &mut keep)?;
    }
    if is_first {
        talk.data(format_args!("{}", out.display()))?;
    }
    Ok(Exit::Success)
}

/// Everything beside the prompt that a reply depends on.
fn how(args: &Generate, dir: &Path, renderer: &Renderer) -> Result<Json> {
    let sampling = &args.sampling;
    let mut how = speaks(args, dir)?;
    let more = json!({
        "template": renderer.template().sha256(),
        "tokenizer": renderer.tokenizer().sha256(),
        "greedy": sampling.greedy,
        "temperature": sampling.temperature,
        "top_k": sampling.top_k,
        "top_p": sampling.top_p,
        "min_p": sampling.min_p,
        "repetition_penalty": sampling.repetition_penalty,
        "seed": sampling.seed,
        "max_new_tokens": args.max_new_tokens,
        "ignore_eos": args.ignore_eos,
        "logprobs": args.logprobs,
    });
    if let Json::Object(more) = more {
        how.extend(more);
    }
    Ok(how.into())
}

/// The replies that are wanted, in the order of their rows.
fn wanted(
    args: &Generate,
    suite: &Suite,
    renderer: &Renderer,
    date: Date,
    how: &Json,
) -> Result<Vec<Wanted>> {
    let mut wanted = Vec::new();
    for (prompt, question) in suite.questions.iter().enumerate() {
        let conversation = question.asked().unwrap_or_else(|| question.plain.clone());
        for effort in efforts(args, question) {
            let conversation = conversation.clone().with_effort(&effort);
            let ids = prompt_ids(renderer, &conversation, date)
                .with_context(|| format!("{}: {}", suite.name, question.id))?;
            for sample in 0..args.n {
                for side in sides(args, args.compare) {
                    let asked = Asked {
                        prompt,
                        user: question.user().to_owned(),
                        effort: effort.clone(),
                        sample,
                        side,
                        ids: ids.clone(),
                    };
                    let made = sha256(
                        json!([how, question.id, effort, sample, side.as_str(), ids]).to_string().as_bytes(),
                    );
                    let (id, conversation) = (question.id.clone(), conversation.clone());
                    wanted.push(Wanted { asked, id, conversation, made });
                }
            }
        }
    }
    Ok(wanted)
}

fn efforts(args: &Generate, question: &Question) -> Vec<String> {
    if args.effort.is_empty() {
        vec![question.plain.effort().unwrap_or(EFFORT).to_owned()]
    } else {
        args.effort.clone()
    }
}

/// The file to resume, and how many of its rows are there. A row that was cut off is made again.
fn begin(out: &Path, wanted: &[Wanted], force: bool) -> Result<(Appender, usize)> {
    if force && out.exists() {
        descant_files::remove(out)?;
    }
    if !out.exists() {
        return Ok((Appender::create(out)?, 0));
    }
    let bytes = descant_files::read_bounded(out, LIMIT)?;
    let (mut done, mut length) = (0, 0);
    for line in bytes.split_inclusive(|byte| *byte == b'\n').filter(|line| line.ends_with(b"\n")) {
        let made = serde_json::from_slice::<Json>(line)
            .ok()
            .and_then(|row| Some(row.get("made")?.as_str()?.to_owned()));
        if wanted.get(done).is_none_or(|wanted| made.as_deref() != Some(&wanted.made)) {
            let error = anyhow!(
                "{}: line {} was made with other settings, or is not a reply to {}",
                out.display(),
                done + 1,
                wanted.get(done).map_or("a prompt of this file", |wanted| wanted.id.as_str())
            );
            return Err(Hinted::new(error, "give another --out, or --force to replace the file").into());
        }
        done += 1;
        length += line.len() as u64;
    }
    Ok((Appender::resume(out, length)?, done))
}

/// The conversation with its reply. A reply without an answer is kept as its text: no row to train on, and none to ask
/// for again.
fn row(wanted: &Wanted, reply: &Generated, renderer: &Renderer) -> Result<Json> {
    let turn = Turn::read(renderer.tokenizer(), &reply.ids);
    let mut conversation = wanted.conversation.clone();
    let answer = turn.message();
    let answered = answer.is_some();
    conversation.messages.extend(answer);
    let input = conversation.to_input(false);
    let mut row = Map::new();
    row.insert("id".into(), wanted.id.as_str().into());
    row.insert("messages".into(), input.messages);
    if !input.tools.is_null() {
        row.insert("tools".into(), input.tools);
    }
    row.insert("reasoning_effort".into(), wanted.asked.effort.as_str().into());
    if !answered {
        row.insert("reply".into(), renderer.tokenizer().decode(&reply.ids)?.into());
    }
    row.insert("sample".into(), wanted.asked.sample.into());
    row.insert("side".into(), wanted.asked.side.as_str().into());
    row.insert("stop".into(), serde_json::to_value(reply.stop)?);
    if !reply.log_probabilities.is_empty() {
        row.insert("ids".into(), json!(reply.ids));
        row.insert("log_probabilities".into(), json!(reply.log_probabilities));
    }
    if !reply.top.is_empty() {
        row.insert("top".into(), json!(reply.top));
    }
    row.insert("made".into(), wanted.made.as_str().into());
    Ok(Json::Object(row))
}
