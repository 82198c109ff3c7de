//! Looks at BIRD, the kernel and the neighbours of adopted tunnels.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;

use futures::StreamExt as _;
use futures::stream;
use tokio::time::Instant;

use super::{AdoptionError, Takeover};
use crate::adopt::{Adopted, Baseline, Doubt, Seen};
use crate::bird::Client as BirdClient;
use crate::config::Config;
use crate::intervals::ADOPT_LOOK;
use crate::kernel::LinuxKernel;
use crate::model::InterfaceName;
use crate::observed::bird::Protocol;
use crate::observed::kernel::KernelView;
use crate::ports::Kernel as _;
use crate::sources::probe::{Echo, IcmpPing, ProbeSettings, Target};

/// The most neighbours that are asked at the same time; each needs a socket.
const AT_ONCE: usize = 128;
/// Number of echoes before the first change; one of them must be answered.
const FIRST_ECHOES: u16 = 3;

/// The watch over sessions and tunnels.
pub(super) struct Watch {
    bird: PathBuf,
    kernel: LinuxKernel,
    targets: Vec<(InterfaceName, Target)>,
    max_loss: u8,
    begun: Instant,
    baseline: Baseline,
    doubt: Doubt,
}

/// The answers of the neighbours to one echo each.
#[derive(Default)]
struct Echoes {
    asked: BTreeSet<InterfaceName>,
    answered: BTreeSet<InterfaceName>,
}

impl Watch {
    /// Looks at what works before the adoption.
    ///
    /// # Errors
    /// BIRD or the kernel cannot be read.
    pub(super) async fn begin(
        config: &Config,
        kernel: LinuxKernel,
        takeover: &Takeover,
    ) -> Result<Self, AdoptionError> {
        let targets = takeover.documents.iter().filter_map(target);
        let mut watch = Self {
            bird: config.bird.control_socket.clone(),
            kernel,
            targets: targets.collect(),
            max_loss: takeover.max_loss,
            begun: Instant::now(),
            baseline: Baseline::default(),
            doubt: Doubt::default(),
        };
        let echoes = watch.echoes(FIRST_ECHOES).await;
        let interfaces = takeover.documents.iter().filter_map(Adopted::interface);
        let (protocols, kernel) = watch.read().await?;
        let seen = Seen {
            at: watch.begun.elapsed(),
            protocols: &protocols,
            kernel: &kernel,
            asked: &echoes.asked,
            answered: &echoes.answered,
        };
        watch.baseline = Baseline::of(seen, interfaces);
        Ok(watch)
    }

    pub(super) fn kernel(&self) -> &LinuxKernel {
        &self.kernel
    }

    /// Returns what worked before the first change.
    pub(super) fn baseline(&self) -> &Baseline {
        &self.baseline
    }

    /// Returns whether every tunnel has passed something since this time.
    pub(super) fn is_heard_since(&self, time: Instant) -> bool {
        let time = time.saturating_duration_since(self.begun);
        self.baseline.is_heard_since(time)
    }

    /// Returns whether the last look failed, so that only the next one can tell.
    pub(super) fn is_in_doubt(&self) -> bool {
        self.doubt.is_open()
    }

    /// Looks once. Takes up to the timeout of an echo. Safe to cancel.
    ///
    /// # Errors
    /// A loss, or a BIRD or kernel that cannot be read, if the look before this one failed too.
    pub(super) async fn look(&mut self) -> Result<(), AdoptionError> {
        let looked = self.look_once().await;
        self.doubt.judge(looked)
    }

    async fn look_once(&mut self) -> Result<(), AdoptionError> {
        let echoes = self.echoes(1).await;
        let (protocols, kernel) = self.read().await?;
        let seen = Seen {
            at: self.begun.elapsed(),
            protocols: &protocols,
            kernel: &kernel,
            asked: &echoes.asked,
            answered: &echoes.answered,
        };
        match self.baseline.look(seen, self.max_loss) {
            Some(loss) => Err(loss.into()),
            None => Ok(()),
        }
    }

    /// Reads BIRD's protocols and the kernel. A client that has asked before may have older counts of many protocols.
    async fn read(&self) -> Result<(Arc<[Protocol]>, KernelView), AdoptionError> {
        let client = BirdClient::new(&self.bird);
        let protocols = client.protocols().await.map_err(AdoptionError::Silent)?;
        Ok((protocols, self.kernel.observe().await?))
    }

    async fn echoes(&self, count: u16) -> Echoes {
        let settings = &ProbeSettings {
            count,
            timeout: ADOPT_LOOK,
            ..ProbeSettings::default()
        };
        let ask = |(interface, target): &(InterfaceName, Target)| {
            let (interface, target) = (interface.clone(), target.clone());
            async move { (interface, IcmpPing.echoes(&target, settings).await) }
        };
        let asked = stream::iter(self.targets.iter().map(ask));
        let mut asked = asked.buffer_unordered(AT_ONCE);
        let mut echoes = Echoes::default();
        while let Some((interface, answers)) = asked.next().await {
            // Without a socket, or a way to send, silence says nothing.
            let Ok(answers) = answers else { continue };
            if answers.iter().any(|echo| matches!(echo, Echo::Answered(_))) {
                echoes.answered.insert(interface.clone());
            }
            if answers.iter().any(|echo| *echo != Echo::Unsent) {
                echoes.asked.insert(interface);
            }
        }
        echoes
    }
}

/// Returns the neighbour of an adopted session, in its tunnel.
fn target(adopted: &Adopted) -> Option<(InterfaceName, Target)> {
    let (interface, address) = (adopted.interface()?, &adopted.document.spec.address);
    let link_local = address.peer_link_local.map(|it| it.get().into());
    let v6 = address.peer_ipv6.map(|it| it.get().into());
    let address = link_local.or(v6).or(address.peer_ipv4.map(IpAddr::from))?;
    let target = Target {
        address,
        interface: Some(interface.clone()),
    };
    Some((interface.clone(), target))
}
