//! Pictures of the machine's screen.

mod picture;

use crate::results;
use async_trait::async_trait;
use see_core::config::{ConfigPath, OneOrMany};
use see_core::{
    Context, Error, ErrorKind, Event, HandlerFuture, Hook, Result, SandboxState, SerialHandler,
    Turn,
};
use serde::Deserialize;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::AsyncWriteExt;

/// How long the hypervisor may take for a picture.
const PATIENCE: Duration = Duration::from_secs(30);

/// Takes a picture of the screen on the configured events.
///
/// The picture is taken before the event's next handler runs, so it shows the machine as it was.
/// Whatever format the hypervisor gives, `<identifier>_<event>.png` is written, `…_2.png` for the
/// second of that name and so on. Then `screenshot_taken` is posted, with its `path` and the
/// `event`.
///
/// The machine has to be running or paused; else the event is a mishap and nothing is written.
#[derive(Debug)]
pub struct ScreenHook;

/// The configuration of `screen`.
#[derive(Debug, Clone, Deserialize)]
pub struct ScreenConfiguration {
    /// The folder for the pictures; made where it is missing.
    pub results_folder: ConfigPath,
    /// The events on which a picture is taken: one name, or a list.
    pub screenshot_on_event: OneOrMany<String>,
}

#[async_trait]
impl Hook for ScreenHook {
    const NAME: &'static str = "screen";
    const ALIASES: &'static [&'static str] = &["plugins.screen.ScreenHook"];
    type Configuration = ScreenConfiguration;

    async fn attach(configuration: ScreenConfiguration, context: &Context) -> Result<Self> {
        if context.machine().screenshot().is_none() {
            return Err(Error::unsupported("a picture of this machine's screen")
                .advice("leave the hook `screen` out, or mark it `\"required\": false`"));
        }
        let folder: Arc<PathBuf> = Arc::new(configuration.results_folder.path().to_owned());
        for name in configuration.screenshot_on_event {
            let camera = Camera {
                context: context.clone(),
                folder: Arc::clone(&folder),
            };
            context.subscribe_serial(&name, camera);
        }
        Ok(Self)
    }
}

#[derive(Clone)]
struct Camera {
    context: Context,
    folder: Arc<PathBuf>,
}

impl SerialHandler for Camera {
    fn handle<'a>(&'a self, _turn: &'a mut Turn, event: &'a Event) -> HandlerFuture<'a> {
        let (camera, name) = (self.clone(), event.name().to_owned());
        Box::pin(async move { camera.shoot_whole(name).await })
    }
}

impl Camera {
    /// Takes a picture in a task of its own: a handler's future may be dropped, and would leave
    /// half a file.
    async fn shoot_whole(self, event: String) -> Result<()> {
        let task = tokio::spawn(async move { self.shoot(&event).await });
        task.await.unwrap_or_else(|error| {
            Err(Error::new(ErrorKind::Internal, "taking the picture panicked").caused_by(error))
        })
    }

    async fn shoot(&self, event: &str) -> Result<()> {
        let sandbox = self.context.machine();
        let state = sandbox.state().await?;
        if !matches!(state, SandboxState::Running | SandboxState::Paused) {
            let message = format!("the machine is {state}");
            return Err(Error::new(ErrorKind::IllegalTransition, message)
                .during("screenshot")
                .advice("possible when it is running or paused"));
        }
        let Some(screen) = sandbox.screenshot() else {
            return Err(Error::unsupported("a picture of this machine's screen"));
        };
        let picture = tokio::time::timeout(PATIENCE, screen.take())
            .await
            .map_err(|_| Error::timeout("the hypervisor's picture of the screen", PATIENCE))??;
        let png = tokio::task::spawn_blocking(move || picture::to_png(picture))
            .await
            .map_err(|error| {
                Error::new(ErrorKind::Internal, "reading the picture panicked").caused_by(error)
            })??;
        let stem = format!(
            "{}_{}",
            self.context.identifier(),
            results::plain_name(event)
        );
        let (path, mut file) = results::create(&self.folder, &stem, "png").await?;
        self.context.capture(path.clone());
        let written = async {
            file.write_all(&png).await?;
            file.flush().await
        };
        if let Err(error) = written.await {
            // Half a picture is worse than none.
            drop(tokio::fs::remove_file(&path).await);
            return Err(Error::io("the picture cannot be written", error).subject(path.display()));
        }
        let taken = Event::new("screenshot_taken")
            .with("path", path)
            .with("event", event.to_owned());
        self.context.post(taken)
    }
}
