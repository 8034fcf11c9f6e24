//! Builds the body of a request that uploads a plugin. The body is sent in pieces, so the command
//! can show progress.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use futures_util::stream;
use lantern_plugin::source_media_type;

use super::transport::{Body, JSON};

const WASM: &str = "application/wasm";
/// The number of bytes of an upload that are passed to the connection at a time.
const UPLOAD_PART_BYTES: usize = 64 << 10;

/// A plugin, as a command has read it from its file.
pub(crate) struct PluginFile {
    /// The name of the file if it is a script or a declaration; `None` for WebAssembly.
    pub(crate) source_name: Option<String>,
    /// The content of the file.
    pub(crate) content: Vec<u8>,
}

impl PluginFile {
    fn media(&self) -> &'static str {
        let Some(name) = &self.source_name else { return WASM };
        // The server refuses names without a known extension, so this default is never used.
        source_media_type(name).unwrap_or("application/yaml")
    }
}

/// Returns the body of a request with a plugin. Without parameters, the body is the plugin alone.
/// With parameters, the body is a form that contains both.
pub(super) fn component(
    plugin: PluginFile,
    parameters: Option<&str>,
    sent: Arc<AtomicU64>,
) -> Body {
    let media = plugin.media();
    let part_name = if plugin.source_name.is_some() { "source" } else { "plugin" };
    let content = plugin.content;
    let Some(parameters) = parameters else {
        let length = content.len() as u64;
        return Body { media: media.into(), length, content: counted(content.into(), sent) };
    };
    let boundary = boundary(&content, parameters);
    let mut form = Vec::with_capacity(content.len() + parameters.len() + 512);
    let mut part = |name: &str, media: &str, content: &[u8]| {
        let file = if name == part_name { "; filename=\"plugin\"" } else { "" };
        form.extend_from_slice(
            format!(
                "--{boundary}\r\nContent-Disposition: form-data; name=\"{name}\"{file}\r\nContent-Type: {media}\r\n\r\n"
            )
            .as_bytes(),
        );
        form.extend_from_slice(content);
        form.extend_from_slice(b"\r\n");
    };
    part("parameters", JSON, parameters.as_bytes());
    part(part_name, media, &content);
    form.extend_from_slice(format!("--{boundary}--\r\n").as_bytes());
    let length = form.len() as u64;
    let media = format!("multipart/form-data; boundary={boundary}");
    Body { media, length, content: counted(form.into(), sent) }
}

/// Returns the boundary, a text that separates the parts of a form. It occurs neither in `content`
/// nor in `parameters`.
fn boundary(content: &[u8], parameters: &str) -> String {
    (0_u32..)
        .map(|n| format!("lantern-part-{n:08x}"))
        .find(|b| {
            let within = |text: &[u8]| text.windows(b.len()).any(|window| window == b.as_bytes());
            !within(content) && !within(parameters.as_bytes())
        })
        .expect("finite contents cannot hold every boundary")
}

/// Returns a body that counts its bytes in `sent` when the connection takes them.
fn counted(bytes: Bytes, sent: Arc<AtomicU64>) -> reqwest::Body {
    reqwest::Body::wrap_stream(stream::unfold((bytes, sent), |(mut rest, sent)| async move {
        if rest.is_empty() {
            return None;
        }
        let part = rest.split_to(rest.len().min(UPLOAD_PART_BYTES));
        sent.fetch_add(part.len() as u64, Ordering::Relaxed);
        Some((Ok::<_, std::convert::Infallible>(part), (rest, sent)))
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_boundary_occurs_in_neither_part() {
        assert_eq!(boundary(b"..lantern-part-00000000..", "{}"), "lantern-part-00000001");
    }
}
