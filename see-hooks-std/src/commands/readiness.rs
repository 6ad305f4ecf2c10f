//! Looking for the agent of a guest that boots, and telling the reasons for not finding it apart.

use super::CommandsConfiguration;
use super::guest::{Guest, Way};
use super::isolation::{self, Proof};
use super::not_ready::{Cause, NotReady};
use super::python_agent::PythonAgent;
use crate::client::{Client, ClientError};
use see_agent::protocol::FailureCode;
use see_core::{
    AgentTransport, Context, Event, ISOLATION_BROKEN, ISOLATION_NOT_CHECKED, ISOLATION_PROVEN,
};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpStream;
use tokio::time::Instant;

/// How often the machine is looked at while its agent is silent.
pub(super) const LOOK: Duration = Duration::from_millis(250);
/// How long a TCP connection, or an agent behind one, may take.
const CONNECT: Duration = Duration::from_secs(5);
/// How long the guest may take to get an address before its network is tried: a busy host makes it slow.
const LEASE: Duration = Duration::from_secs(60);
/// How long a call at the start of a session may take.
pub(super) const CALL: Duration = Duration::from_secs(10);
/// How long a guest takes at most until it is known whether it is ready. A little longer than looking for the agent
/// takes: its own verdict says more.
pub(super) fn longest(configuration: &CommandsConfiguration, context: &Context) -> Duration {
    let look = configuration.ready_timeout() + Duration::from_secs(5);
    match isolation::is_wanted(context) {
        true => look + isolation::PROOF + LEASE,
        false => look,
    }
}

/// Looks for the agent until it answers or the time is up, posts what becomes of it, and gives it.
pub(super) async fn look(search: &mut Search<'_>) -> Option<Way> {
    let guest = search.guest;
    let found = match search.agent().await {
        Ok(way) => search.walls(&way).await.map(|()| way),
        Err(why) => Err(why),
    };
    match found {
        Ok(way) => {
            let ready = Event::new("ready").with("seconds", search.since.elapsed().as_secs_f64());
            guest.is_ready(way.clone());
            guest.post_surely(ready).await;
            Some(way)
        }
        Err(why) => {
            let why = why.with_advice();
            tracing::warn!(
                cause = why.cause.name(),
                "the guest is not ready: {}",
                why.message
            );
            let event = why.event("not_ready", search.since);
            let no_address = why.event("not_ip_address", search.since);
            let no_proof = why.event("not_isolation_proven", search.since);
            guest.never_is_ready(why);
            if isolation::is_wanted(guest.context()) {
                guest.post_surely(no_proof).await;
            }
            guest.post_surely(event).await;
            // It may have one, but nobody looks for it any more.
            guest.post_surely(no_address).await;
            None
        }
    }
}

/// A search for the agent of one guest.
pub(super) struct Search<'a> {
    guest: &'a Guest,
    since: Instant,
    until: Instant,
    /// The reason that was told last.
    told: Option<NotReady>,
}

impl<'a> Search<'a> {
    pub(super) fn new(guest: &'a Guest) -> Self {
        let since = Instant::now();
        Self {
            guest,
            since,
            until: since + guest.configuration().ready_timeout(),
            told: None,
        }
    }

    fn left(&self) -> Duration {
        self.until.saturating_duration_since(Instant::now())
    }

    /// Tells a reason when it is a new one, rests, and says whether to go on.
    async fn wait(&mut self, why: NotReady) -> Result<(), NotReady> {
        let is_new = self
            .told
            .as_ref()
            .is_none_or(|told| told.cause != why.cause);
        if why.cause.is_final() || self.left().is_zero() {
            return Err(why);
        }
        if is_new {
            let event = why.event("waiting_for_guest", self.since);
            if let Err(error) = self.guest.context().post(event) {
                tracing::debug!("not posted: {error}");
            }
        }
        self.told = Some(why);
        tokio::time::sleep(LOOK.min(self.left())).await;
        self.power().await
    }

    /// An error once the machine is off.
    async fn power(&self) -> Result<(), NotReady> {
        match self.guest.context().machine().state().await {
            Ok(state) if state.is_off() => {
                let message = format!("the machine is {state} before anybody in it answered");
                Err(NotReady::new(Cause::NoPower, message))
            }
            // Not knowing is no reason to give up; the next look may tell.
            _ => Ok(()),
        }
    }

    /// Looks for the agent until it answers or the time is up.
    pub(super) async fn agent(&mut self) -> Result<Way, NotReady> {
        let settings = self.guest.context().agent().clone();
        if let Some(port) = self.guest.configuration().agent_port {
            return self.python_agent(port).await;
        }
        match settings.transport {
            AgentTransport::None => Ok(Way::Nobody),
            AgentTransport::Serial => self.over_channel().await.map(Way::Agent),
            AgentTransport::Tcp => {
                let token = match &settings.token {
                    Some(token) => token.reveal().as_bytes().to_vec(),
                    None => self.hand_over(new_token()?).await?,
                };
                self.over_tcp(settings.port, token).await.map(Way::Agent)
            }
        }
    }

    /// Has the guest try the walls around its network, where that is wanted, and posts what came of it. An
    /// error when there is a hole.
    async fn walls(&mut self, way: &Way) -> Result<(), NotReady> {
        let guest = self.guest;
        if !isolation::is_wanted(guest.context()) {
            return Ok(());
        }
        if let Some(outcome) = guest.tried_walls() {
            return outcome;
        }
        let since = Instant::now();
        let proof = match self.lease(way).await {
            Ok(()) => isolation::prove(guest, way).await,
            Err(why) if why.cause == Cause::NoPower => return Err(why),
            Err(why) => Proof::Unknown(why.message),
        };
        match proof {
            Proof::NotWanted => Ok(()),
            Proof::Closed { tried } => {
                guest.keep_tried(Ok(()));
                let event = Event::new(ISOLATION_PROVEN)
                    .with("tried", tried as u64)
                    .with("seconds", since.elapsed().as_secs_f64());
                guest.post_surely(event).await;
                Ok(())
            }
            // The environment ends by it: nothing runs in a guest whose network may be open.
            Proof::Unknown(why) => {
                let message = isolation::unknown(&why);
                let event = Event::new(ISOLATION_NOT_CHECKED).with("message", message.clone());
                guest.post_surely(event).await;
                Err(NotReady::new(Cause::Isolation, message))
            }
            Proof::Open(holes) => {
                let message = isolation::open(&holes);
                guest.keep_tried(Err(NotReady::new(Cause::Isolation, message.clone())));
                let event = Event::new(ISOLATION_BROKEN)
                    .with("message", message.clone())
                    .with("holes", serde_json::Value::from(holes));
                guest.post_surely(event).await;
                Err(NotReady::new(Cause::Isolation, message))
            }
        }
    }

    /// Waits until a guest that can try its network has an address on it.
    async fn lease(&mut self, way: &Way) -> Result<(), NotReady> {
        let is_expected = self.guest.context().machine().has_network();
        if !is_expected || !matches!(way, Way::Agent(_)) {
            return Ok(());
        }
        self.until = Instant::now() + LEASE;
        self.told = None;
        self.address().await.map(drop)
    }

    /// The agent behind the guest channel.
    async fn over_channel(&mut self) -> Result<Client, NotReady> {
        let context = self.guest.context().clone();
        loop {
            let Some(channel) = context.machine().guest_channel() else {
                let message = "the machine has no guest channel";
                return Err(NotReady::new(Cause::NoChannel, message));
            };
            let why = match tokio::time::timeout(CONNECT, channel.open()).await {
                Ok(Ok(stream)) => match self.greet(stream).await? {
                    Ok(client) => return Ok(client),
                    Err(why) => why,
                },
                Ok(Err(error)) => NotReady::new(Cause::NoChannel, error.chain()),
                Err(_) => NotReady::new(Cause::NoChannel, "opening the guest channel takes long"),
            };
            self.wait(why).await?;
        }
    }

    /// Says hello over an open channel for as long as there is time, since closing and opening it
    /// again would only lose what is under way. The outer error ends the search.
    async fn greet(
        &mut self,
        stream: impl tokio::io::AsyncRead + tokio::io::AsyncWrite + Send + Unpin + 'static,
    ) -> Result<Result<Client, NotReady>, NotReady> {
        let connecting = Client::connect(stream, b"", self.left());
        tokio::pin!(connecting);
        loop {
            let reason = self.silence().await;
            tokio::select! {
                connected = &mut connecting => {
                    let error = match connected {
                        Ok(client) => return Ok(Ok(client)),
                        Err(error) => error,
                    };
                    let why = reason_of(&error);
                    // The console knows better why nobody answers.
                    let silence = self.silence().await;
                    return Ok(Err(match (why.cause, silence.cause) {
                        (Cause::NoAgent, Cause::NoBootOutput) => silence,
                        _ => why,
                    }));
                }
                waited = self.wait(reason) => waited?,
            }
        }
    }

    /// Why an agent may be silent: the guest's console tells whether it boots at all.
    async fn silence(&self) -> NotReady {
        let context = self.guest.context();
        if let Some(console) = context.machine().console() {
            let written = tokio::fs::metadata(console.log()).await;
            if written.map_or(0, |file| file.len()) == 0 {
                let message = "the guest has not written to its console yet";
                return NotReady::new(Cause::NoBootOutput, message);
            }
        }
        NotReady::new(Cause::NoAgent, "no agent answers on the guest channel")
    }

    /// Gives the agent a token for TCP, over the guest channel.
    async fn hand_over(&mut self, token: Vec<u8>) -> Result<Vec<u8>, NotReady> {
        if self.guest.context().machine().guest_channel().is_none() {
            let message =
                "`agent.token` is not set, and there is no guest channel to hand one over";
            return Err(NotReady::new(Cause::NoToken, message));
        }
        loop {
            let client = self.over_channel().await?;
            let why = match client.authorize(&token, CALL).await {
                Ok(()) => return Ok(token),
                Err(error @ ClientError::Refused { .. }) => {
                    NotReady::new(Cause::NoToken, error.to_string())
                }
                Err(error) => reason_of(&error),
            };
            self.wait(why).await?;
        }
    }

    /// The agent behind the guest's network.
    async fn over_tcp(&mut self, port: u16, token: Vec<u8>) -> Result<Client, NotReady> {
        let mut handed_over = false;
        loop {
            let address = self.address().await?;
            let why = match connect(address, port).await {
                Ok(stream) => {
                    let time = CONNECT.min(self.left());
                    match Client::connect(stream, &token, time).await {
                        Ok(client) => return Ok(client),
                        Err(ClientError::Refused {
                            code: FailureCode::NoToken,
                            ..
                        }) if !handed_over => {
                            handed_over = true;
                            self.hand_over(token.clone()).await?;
                            continue;
                        }
                        Err(error) => reason_of(&error),
                    }
                }
                Err(why) => why,
            };
            self.wait(why).await?;
        }
    }

    /// python-see's agent: a port that takes connections has to do, since its protocol has no
    /// request without effects.
    async fn python_agent(&mut self, port: u16) -> Result<Way, NotReady> {
        loop {
            let host = match &self.guest.configuration().agent_host {
                Some(host) => host.clone(),
                None => self.address().await?.to_string(),
            };
            let connected = TcpStream::connect((host.as_str(), port));
            let why = match tokio::time::timeout(CONNECT, connected).await {
                Ok(Ok(_)) => {
                    let agent = PythonAgent::new(&host, port)
                        .map_err(|error| NotReady::new(Cause::BadAgent, error.chain()))?;
                    return Ok(Way::Python(Arc::new(agent)));
                }
                Ok(Err(error)) => no_agent(&host, port, &error.to_string()),
                Err(_) => no_agent(&host, port, "no answer"),
            };
            self.wait(why).await?;
        }
    }

    /// The guest's address, as soon as it has one.
    async fn address(&mut self) -> Result<IpAddr, NotReady> {
        loop {
            if let Some(address) = self.guest.told_address() {
                return Ok(address);
            }
            let message = match self.guest.context().machine().addresses().await {
                Ok(addresses) => {
                    let mut usable = addresses.iter().map(|address| address.ip);
                    let first = usable.clone().next();
                    if let Some(address) = usable.find(IpAddr::is_ipv4).or(first) {
                        return Ok(address);
                    }
                    "the guest has no address yet".to_owned()
                }
                Err(error) => error.chain(),
            };
            if let Err(mut given_up) = self.wait(NotReady::new(Cause::NoLease, message)).await {
                let sandbox = self.guest.context().machine();
                if given_up.cause == Cause::NoLease
                    && let Some(why) = sandbox.why_no_address().await
                {
                    given_up.message = format!("{}: {why}", given_up.message);
                }
                return Err(given_up);
            }
        }
    }

    /// Posts `ip_address`: at once where there is no network, else when there is an address.
    pub(super) async fn tell_address(&mut self) {
        let event = Event::new("ip_address");
        // Somebody who told the address has posted the event.
        if self.guest.told_address().is_some() {
            return;
        }
        if !self.guest.context().machine().has_network() {
            return self.guest.post_surely(event).await;
        }
        self.until = Instant::now() + self.guest.configuration().ready_timeout();
        self.told = None;
        match self.address().await {
            Ok(address) => {
                let event = event.with("address", address.to_string());
                self.guest.post_surely(event).await;
            }
            Err(why) => {
                tracing::warn!("`ip_address` is not posted: {}", why.message);
                self.guest
                    .post_surely(why.event("not_ip_address", self.since))
                    .await;
            }
        }
    }
}

async fn connect(address: IpAddr, port: u16) -> Result<TcpStream, NotReady> {
    let refused = |why: &str| no_agent(&address.to_string(), port, why);
    let stream = match tokio::time::timeout(CONNECT, TcpStream::connect((address, port))).await {
        Ok(Ok(stream)) => stream,
        Ok(Err(error)) => return Err(refused(&error.to_string())),
        Err(_) => return Err(refused("no answer")),
    };
    stream
        .set_nodelay(true)
        .map_err(|error| refused(&error.to_string()))?;
    Ok(stream)
}

fn no_agent(host: &str, port: u16, why: &str) -> NotReady {
    let message = format!("no agent takes connections at {host} port {port}: {why}");
    NotReady::new(Cause::NoAgent, message)
}

pub(super) fn reason_of(error: &ClientError) -> NotReady {
    let cause = match error {
        ClientError::Refused {
            code: FailureCode::WrongToken,
            ..
        } => Cause::WrongToken,
        ClientError::Refused {
            code: FailureCode::NoToken,
            ..
        } => Cause::NoToken,
        ClientError::Violation(_) | ClientError::Refused { .. } => Cause::BadAgent,
        _ => Cause::NoAgent,
    };
    NotReady::new(cause, error.to_string())
}

/// A token of 32 bytes from the system's source of random numbers, in hexadecimal digits.
fn new_token() -> Result<Vec<u8>, NotReady> {
    let mut bytes = [0; 32];
    getrandom::fill(&mut bytes)
        .map_err(|error| NotReady::new(Cause::NoToken, format!("making a token: {error}")))?;
    let digits = bytes.iter().flat_map(|byte| [byte >> 4, byte & 15]);
    Ok(digits
        .map(|digit| b"0123456789abcdef"[usize::from(digit)])
        .collect())
}

#[cfg(test)]
mod tests {
    use super::new_token;
    use std::collections::HashSet;

    #[test]
    fn every_token_is_another_one_of_64_hexadecimal_digits() {
        let tokens: HashSet<_> = (0..64).map(|_| new_token().expect("a token")).collect();
        assert_eq!(tokens.len(), 64);
        assert!(tokens.iter().all(|token| token.len() == 64));
        assert!(tokens.iter().flatten().all(u8::is_ascii_hexdigit));
    }
}
