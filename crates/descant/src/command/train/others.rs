//! A run in a process that is not rank 0: it computes its share of replies and steps, and keeps and says nothing.

use anyhow::Result;
use descant_lora::LoraAdapters;
use descant_model::{Bare, GptOss, Overlay};
use descant_train::checkpoint::{Identity, Store};
use descant_train::{Ended, Keeping, Silent, Watched, Workers, fit_kept};

use super::course::{course, validation};
use super::lines::stopped;
use crate::cards::{Begin, Team};
use crate::command::examination::{Answering, Examination};
use crate::command::room::Room;
use crate::command::stalls::Stalls;
use crate::failure::Exit;
use crate::settings::Settings;
use crate::signals::Signals;
use crate::talk::Talk;

/// A process that is not rank 0: it computes its share, and keeps and says nothing.
pub(super) struct Others<'a> {
    pub(super) team: &'a Team,
    pub(super) settings: &'a Settings,
    pub(super) room: &'a Room,
    pub(super) signals: &'a Signals,
    pub(super) watched: &'a [Watched],
    pub(super) talk: Talk,
}

impl Others<'_> {
    pub(super) fn work(
        &self,
        model: &GptOss,
        samples: &dyn descant_train::Samples,
        adapters: LoraAdapters,
        workers: Option<Workers<'_>>,
        examination: Option<&Examination<'_>>,
    ) -> Result<Exit> {
        let talk = self.talk;
        let Begin { done, folder } = self.team.tell("begin", None)?;
        if done {
            return Ok(Exit::Success);
        }
        #[cfg(feature = "cuda")]
        let _choices = crate::command::kept::keep_choices(&folder.join("choices"));
        let group = Some(&self.team.group);
        let ask = |name: &str, overlay: &dyn Overlay| {
            let answering = Answering { model, overlay, adapter: None };
            let asked = examination.map(|all| all.ask(name, None, &answering, group, &mut Silent));
            asked.transpose().map(drop)
        };
        ask("before", &Bare)?;
        self.signals.hold();
        let stalls = Stalls::new();
        // Rank 0 keeps what is kept.
        let store = Store { run: folder, identity: Identity::new(), keep: 0 };
        let keeping = Keeping {
            store: &store,
            every: self.settings.run.save_every,
            from: None,
            stop: &|| self.signals.came().is_some() || stalls.come(talk),
            validation: validation(self.settings, self.watched, Vec::new(), &|_, _| Ok(())),
        };
        let course = course(model, samples, self.settings, self.room, workers);
        let ended = fit_kept(course, adapters, keeping, &mut Silent)?;
        self.signals.release();
        match ended {
            Ended::Done(adapters) => ask("after", &adapters.frozen())?,
            Ended::Stopped { step } => return stopped(step, self.signals, &stalls, self.settings, talk),
        }
        Ok(Exit::Success)
    }
}
