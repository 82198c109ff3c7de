//! Tests an operator's templates: renders everything with them and runs BIRD's parser.

use std::sync::Arc;

use super::Builder;
use crate::ports::CommitError;
use crate::render::Renderer;
use crate::sources::Rejection;
use crate::store::Store;
use crate::telemetry::chain;
use crate::util::task::spawn_blocking;

/// Tests templates that are not in use yet.
pub(crate) async fn test_templates(
    builder: Arc<Builder>,
    renderer: Arc<Renderer>,
) -> Result<(), Rejection> {
    let unknown = |error: &dyn std::error::Error| Rejection::Unknown(chain(error));
    let snapshot = {
        let _writing = builder.feed.writing().await;
        builder.context.disk(Store::load).await
    };
    let snapshot = snapshot.map_err(|error| unknown(&error))?;
    let bird = builder
        .context
        .observer
        .bird(tokio::time::Instant::now())
        .await;
    let asked = builder.maker.ask(&bird).await;
    // A template may take long to render, and must not delay other work.
    let maker = Arc::clone(&builder.maker);
    let render = move || {
        let material = maker.material(&snapshot, &bird, asked);
        maker.render_with(&snapshot, &material, &renderer)
    };
    let tree = spawn_blocking(render)
        .await
        .map_err(|error| unknown(&error))??;
    match builder.committer.check(tree).await {
        Ok(()) => Ok(()),
        Err(CommitError::Tree(what)) => Err(Rejection::Refused(format!(
            "BIRD refuses the rendered templates: {what}"
        ))),
        Err(error @ CommitError::NotReached(_)) => Err(Rejection::Refused(chain(&error))),
        Err(error) => Err(unknown(&error)),
    }
}
