//! A run's scalars as an event file of TensorBoard, written whole from the run's own logs.
//!
//! A record is its length, a checksum of the length, the bytes, and a checksum of them; the bytes are an `Event`
//! message of tensorflow/core/util/event.proto. Only what scalars need of it is here. Wall time is the seconds of steps
//! since the first, so that equal logs give equal files.

use descant_train::{StepMetrics, StepTiming};

/// Where the file is in a run's folder; TensorBoard looks for names that contain `tfevents`.
pub(crate) const FILE: &str = "tensorboard/events.out.tfevents.0.descant";

/// All steps as one file.
pub(crate) fn event_file(steps: &[StepMetrics], timings: &[StepTiming]) -> Vec<u8> {
    let mut file = Vec::new();
    let mut first = Vec::new();
    field_double(&mut first, 1, 0.0);
    field_bytes(&mut first, 3, b"brain.Event:2");
    record(&mut file, &first);
    let mut seconds = 0.0;
    for step in steps {
        let timing = timings.iter().find(|timing| timing.step == step.step);
        seconds += timing.map_or(0.0, |timing| timing.seconds);
        let scalar = |tag: &str, value: Option<f32>| (tag.to_owned(), value);
        let mut scalars = vec![
            scalar("train/loss", Some(step.loss)),
            scalar("train/first_token_loss", step.first_analysis_loss),
            scalar("train/learning_rate", Some(step.learning_rate as f32)),
            scalar("train/gradient_norm", Some(step.grad_norm)),
            scalar("train/epoch", Some(step.epoch as f32)),
            scalar("speed/tokens_per_second", timing.map(|timing| timing.tokens_per_second as f32)),
        ];
        if let Some(validation) = &step.validation {
            scalars.push(scalar("validation/loss", Some(validation.loss)));
            let channels = validation.channels.iter();
            scalars.extend(
                channels
                    .map(|(name, channel)| scalar(&format!("validation/{name}_loss"), Some(channel.loss))),
            );
        }
        let mut summary = Vec::new();
        for (tag, value) in scalars {
            let Some(value) = value else { continue };
            let mut message = Vec::new();
            field_bytes(&mut message, 1, tag.as_bytes());
            message.push(2 << 3 | 5);
            message.extend(value.to_le_bytes());
            field_bytes(&mut summary, 1, &message);
        }
        let mut event = Vec::new();
        field_double(&mut event, 1, seconds);
        event.push(2 << 3);
        varint(&mut event, step.step);
        field_bytes(&mut event, 5, &summary);
        record(&mut file, &event);
    }
    file
}

fn record(file: &mut Vec<u8>, data: &[u8]) {
    let length = (data.len() as u64).to_le_bytes();
    file.extend(length);
    file.extend(masked(crc32c(&length)).to_le_bytes());
    file.extend(data);
    file.extend(masked(crc32c(data)).to_le_bytes());
}

fn field_double(out: &mut Vec<u8>, number: u8, value: f64) {
    out.push(number << 3 | 1);
    out.extend(value.to_le_bytes());
}

fn field_bytes(out: &mut Vec<u8>, number: u8, bytes: &[u8]) {
    out.push(number << 3 | 2);
    varint(out, bytes.len() as u64);
    out.extend(bytes);
}

fn varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

/// CRC-32C (Castagnoli), reflected.
fn crc32c(bytes: &[u8]) -> u32 {
    let step = |crc: u32, byte: &u8| {
        (0..8).fold(crc ^ u32::from(*byte), |crc, _| (crc >> 1) ^ (0x82F6_3B78 & 0_u32.wrapping_sub(crc & 1)))
    };
    !bytes.iter().fold(u32::MAX, step)
}

/// As records keep it, so that a checksum of checksums is not a trivial one.
fn masked(crc: u32) -> u32 {
    crc.rotate_right(15).wrapping_add(0xA282_EAD8)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::observe::step_of;

    #[test]
    fn the_checksum_is_castagnolis() {
        // RFC 3720, B.4.
        assert_eq!(crc32c(&[0; 32]), 0x8A91_36AA);
        assert_eq!(crc32c(b"123456789"), 0xE306_9283);
    }

    #[test]
    fn records_follow_each_other() {
        let file = event_file(&[step_of(1, 0.5), step_of(300, 0.25)], &[]);
        let (mut at, mut records) = (0, 0);
        while at < file.len() {
            let length = u64::from_le_bytes(file[at..at + 8].try_into().unwrap()) as usize;
            let data = &file[at + 12..at + 12 + length];
            let end = at + 12 + length;
            assert_eq!(masked(crc32c(data)).to_le_bytes(), file[end..end + 4]);
            at = end + 4;
            records += 1;
        }
        assert_eq!(records, 3);
        assert!(file.windows(10).any(|window| window == b"train/loss"));
    }
}
