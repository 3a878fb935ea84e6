//! Defects of a settings file.

use super::{Case, Command, Damage, case, odd};

pub(super) fn all() -> Vec<Case> {
    let given = |text: &str, words| case(Command::Train, "run.toml", text, words);
    vec![
        given("[train", "run.toml:1:"),
        given("train = 3", "unknown key `train`"),
        given("[trian]\nseed = 1", "did you mean [train]?"),
        given("[train]\nlearning_rat = 1", "did you mean train.learning_rate?"),
        given("[train]\nlora_alpha = 1", "write lora.alpha"),
        given("[train]\nseed = 1\nseed = 2", "run.toml:3:1: duplicate key"),
        given("[train]\nlearning_rate = nan", "train.learning_rate is NaN"),
        given("[train]\nlearning_rate = -1.0", "train.learning_rate is -1"),
        given("[train]\nmicro_batch = -1", "invalid value: integer `-1`"),
        given("[train]\nmicro_batch = 0", "train.micro_batch is 0"),
        given("[train]\nmicro_batch = 9223372036854775807", "train.micro_batch is 9223372036854775807"),
        given("[train]\nmax_sequence = 9223372036854775807", "train.max_sequence is 9223372036854775807"),
        given("[train]\nschedule = \"step\"", "unknown variant `step`"),
        given("[train]\nmax_steps = 1\nwarmup_steps = 2", "train.warmup_steps is 2"),
        given("[lora]\nr = 1000000", "lora.r is 1000000"),
        given("[lora]\nalpha = inf", "lora.alpha is inf"),
        given("[lora]\ntargets = [\"all\"]", "`all` matches nothing"),
        given("[data]\ndate = \"yesterday\"", "data.date is `yesterday`"),
        given("[data.loss]\nfinal = -1.0", "data.loss.final is -1"),
        given("[model]\ndevice = \"tpu\"", "device is `tpu`"),
        case(Command::Train, "run.toml", vec![0xff, 0xfe], "run.toml is not UTF-8"),
        case(Command::Train, "run.toml", vec![b'#'; (1 << 20) + 1], "run.toml: longer than the limit"),
        odd(Command::Train, "run.toml", Damage::Gone, "No such file"),
    ]
}
