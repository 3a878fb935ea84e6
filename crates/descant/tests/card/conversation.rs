//! Turns of a conversation on a card: what is kept from turn to turn is what each prompt gets alone.

use burn::tensor::Device;
use descant_kernels::cuda::portable_kernels;
use descant_model::{GenerateOptions, Request, Sampling, Session, Unwatched};

use crate::decoded::{NEW, adapter, generate, wrong};
use crate::models::{Case, nf4_varied, varied};
use crate::{card, is_portable};

const TURNS: usize = 5;

/// A conversation whose prompts grow as those of a template do; between its turns others use the card, whose memory is
/// laid out anew for them.
fn converse(case: &Case, card: &Device) {
    let model = case.load(card);
    let adapter = adapter(case, &model);
    let ids = case.sequences(model.config.vocab_size).concat();
    let mut session = Session::new(&model, &adapter);
    let mut prompt: Vec<u32> = ids.iter().cycle().take(150).copied().collect();
    let [mut off, mut of, mut differ] = [0; 3];
    for turn in 0..TURNS {
        let request = |adapter| Request { adapter, ..Request::greedy(prompt.clone(), NEW) };
        // The base joins in the third turn, and with it both are made anew.
        let asked: Vec<Request> =
            [false, true].into_iter().skip(usize::from(turn < 2)).map(request).collect();
        let replies = session.reply(&asked, &GenerateOptions::default(), &mut Unwatched).expect("replies");
        let reused = session.reused();
        assert!(
            reused.iter().all(|count| (*count > 0) != (turn == 0 || turn == 2)),
            "turn {turn}: {reused:?}"
        );
        for (request, reply) in asked.iter().zip(&replies) {
            let overlay: &dyn descant_model::Overlay =
                if request.adapter { &adapter } else { &descant_model::Bare };
            let [some, all] =
                wrong(&model, overlay, std::slice::from_ref(&prompt), std::slice::from_ref(&reply.ids));
            (off, of) = (off + some, of + all);
            let alone = generate(&model, overlay, std::slice::from_ref(&prompt), Sampling::GREEDY);
            differ += usize::from(alone[0] != reply.ids);
        }
        let reply = &replies.last().expect("the adapter's").ids;
        prompt.extend_from_slice(&reply[..NEW / 2]);
        prompt.extend(ids.iter().cycle().skip(31 * turn).take(40 + 33 * turn));
    }
    println!("{}: {off} of {of} tokens far off, {differ} replies differ from fresh ones", case.name);
    assert!(off <= if case.may_choose_otherwise { of / 10 } else { 0 }, "{}: {off} of {of}", case.name);
}

#[test]
#[ignore = "needs a card"]
fn turns_of_a_conversation_are_what_each_prompt_gets_alone() {
    let card = card();
    for portable in [false, true] {
        portable_kernels(portable || is_portable());
        for case in [varied(), nf4_varied()] {
            converse(&case, &card);
        }
    }
    portable_kernels(is_portable());
}

/// The longest context of the published models, but for a reply.
const LONGEST: usize = 131_072 - NEW;

/// Prompts of several chunks: the later ones attend to what lies in the cache.
#[test]
#[ignore = "needs a card"]
fn a_prompt_of_several_chunks_is_that_of_the_whole_forward() {
    let card = card();
    let case = varied();
    let model = case.load(&card);
    let adapter = adapter(&case, &model);
    let ids = case.sequences(model.config.vocab_size).concat();
    for portable in [false, true] {
        portable_kernels(portable || is_portable());
        // Short ones beside it, so that its chunks go through the model with theirs.
        let prompts: Vec<Vec<u32>> = [9001, 300, 4097, 4096, 4098, 77, LONGEST]
            .into_iter()
            .map(|length| ids.iter().cycle().take(length).copied().collect())
            .collect();
        let replies = generate(&model, &adapter, &prompts, Sampling::GREEDY);
        let [off, of] = wrong(&model, &adapter, &prompts, &replies);
        println!("portable {portable}: {off} of {of} tokens far off");
        assert!(off <= of / 10, "portable {portable}: {off} of {of}");
        // The control: where the last chunk alone is seen, the reply is another.
        let last: Vec<u32> = prompts[0][8192..].to_vec();
        let blind = generate(&model, &adapter, std::slice::from_ref(&last), Sampling::GREEDY);
        let [off, of] = wrong(&model, &adapter, &prompts[..1], &blind);
        assert!(off > of / 10, "portable {portable}: what a chunk alone gives passes for the whole prompt's");
    }
    portable_kernels(is_portable());
}
