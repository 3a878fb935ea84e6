//! Replies as JSON: one object for one reply, a line each for several.

use anyhow::Result;
use descant_harmony::{Renderer, TextEncoder as _};
use descant_model::Generated;
use serde_json::{Value as Json, json};

use super::asked::{Asked, Side};
use crate::talk::Talk;

/// A continuation of ids; of several, which one.
pub(super) fn of_ids(asked: &Asked, reply: &Generated, several: bool) -> Result<Json> {
    let mut value = serde_json::to_value(reply)?;
    if several {
        value["sample"] = asked.sample.into();
        value["side"] = asked.side.as_str().into();
    }
    Ok(value)
}

/// Prints all of them. A single prompt with its reply, or with that of both sides, is one object.
pub(super) fn print(asked: &[Asked], replies: &[Generated], renderer: &Renderer, talk: Talk) -> Result<()> {
    let of = |reply: &Generated| -> Result<Json> {
        let mut value = serde_json::to_value(reply)?;
        value["text"] = renderer.tokenizer().decode(&reply.ids)?.into();
        Ok(value)
    };
    let template = renderer.template().sha256();
    match (asked, replies) {
        ([_], [reply]) => {
            let mut value = of(reply)?;
            value["template_sha256"] = template.into();
            talk.data(value)?;
        }
        ([base, adapter], [before, after]) if (base.side, adapter.side) == (Side::Base, Side::Adapter) => {
            let mut value = of(after)?;
            value["template_sha256"] = template.into();
            value["base"] = of(before)?;
            talk.data(value)?;
        }
        _ => {
            for (asked, reply) in asked.iter().zip(replies) {
                let mut value = json!({
                    "prompt": asked.user,
                    "effort": asked.effort,
                    "sample": asked.sample,
                    "side": asked.side.as_str(),
                });
                if let (Json::Object(value), Json::Object(more)) = (&mut value, of(reply)?) {
                    value.extend(more);
                    value.insert("template_sha256".into(), template.into());
                }
                talk.data(value)?;
            }
        }
    }
    Ok(())
}
