//! The settings that `descant init` writes: the embedded default with every key explained, and with values for a real
//! model instead of the tiny one.

use super::DEFAULT_TOML;

/// Values for the tiny model in the embedded default, and their replacements for the 20b.
const REAL: [(&str, &str); 10] = [
    ("path = \"fixtures/tiny-gpt-oss\"\n", "path = \"hf://openai/gpt-oss-20b\"\n"),
    (
        "path = \"fixtures/tiny-gpt-oss/data/multilingual-thinking-tiny-efforts.jsonl\"\n",
        "path = \"conversations.jsonl\"\n",
    ),
    ("held_out = \"fixtures/tiny-gpt-oss/data/held-out.jsonl\"\n", "# held_out = \"held-out.jsonl\"\n"),
    ("# Default 16.\nmicro_batch = 16\n", "# Default 16.\nmicro_batch = \"auto\"\n"),
    ("accumulation = 1\n", "accumulation = 16\n"),
    (
        "# Peak learning rate. Default 2e-4, which suits the 20b model. The tiny model of this repository needs 5e-3: \
         with 2e-4\n# it still reasoned in English in every reply after 60 steps.\nlearning_rate = 5e-3\n",
        "# Peak learning rate. Default 2e-4.\nlearning_rate = 2e-4\n",
    ),
    (" The tiny model can answer none of them. Default none.\n", " Default none.\n"),
    (
        " The tiny model is fast enough for all of them. Default true.\nquick = false\n",
        " Default true.\nquick = true\n",
    ),
    (
        "languages = [\"en\", \"fr\", \"de\", \"es\", \"it\"]\n",
        "# languages = [\"en\", \"fr\", \"de\", \"es\", \"it\"]\n",
    ),
    (
        "Default 190, enough for the tiny model; use 2048 for the 20b.\nmax_new_tokens = 190\n\
         # Prompts in a batch. Lower it if memory is short. Default 100.\nbatch = 100\n",
        "Default 190.\nmax_new_tokens = 2048\n\
         # Prompts in a batch. Lower it if memory is short. Default 100.\nbatch = 24\n",
    ),
];

/// The commented settings of a run on a real model.
pub(crate) fn init_toml() -> String {
    REAL.iter().fold(DEFAULT_TOML.to_owned(), |text, (tiny, real)| text.replacen(tiny, real, 1))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::settings::{Settings, resolve_text};

    #[test]
    fn what_init_writes_is_for_a_real_model_and_names_no_fixture() {
        for (tiny, _) in REAL {
            assert_eq!(DEFAULT_TOML.matches(tiny).count(), 1, "{tiny}");
        }
        let text = init_toml();
        for word in ["fixtures", "tiny", "5e-3"] {
            assert!(!text.contains(word), "{word}");
        }
        assert!(text.lines().all(|line| line.len() <= 120));
        let written = resolve_text("init", &text, &[]).unwrap().settings;
        written.validate().unwrap();
        let mut expected = Settings::default();
        expected.model.path = "hf://openai/gpt-oss-20b".into();
        expected.data.path = "conversations.jsonl".into();
        (expected.train.micro_batch, expected.train.accumulation) = (descant_train::MicroBatch::Auto, 16);
        (expected.evaluate.max_new_tokens, expected.evaluate.batch) = (2048, 24);
        assert_eq!(written, expected);
    }
}
