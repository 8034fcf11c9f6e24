//! Tests that malformed uploads affect no other projection. The experiment uploads random bytes and
//! damaged plugins to the real server, several at a time.

use anyhow::{Context as _, Result, ensure};
use arbitrary::Unstructured;
use futures_util::{StreamExt as _, stream};
use lantern_tests::guest;
use reqwest::Method;
use tokio::runtime::Runtime;

use super::bombs::{section, sections};
use super::guests::{Expected, Guest};
use super::{AttackRun, frame};

/// The number of connections on which uploads run at the same time.
const AT_ONCE: usize = 6;
/// The number of uploads after which the experiment checks the victim and the process.
const A_LOOK: u64 = 100;
/// The length of a module's header, which is the offset of its first section.
const HEADER_BYTES: usize = 8;
/// The names of the custom sections that the host reads.
const NAMES: [&str; 8] = [
    "component-type",
    "component-type:guest",
    "component-name",
    "name",
    "producers",
    "dylink.0",
    "target_features",
    "",
];
const SETTINGS: &[&str] = &[
    "engine.fuel_event=50000000",
    "plugin.limits.fuel_setup=50000000",
    "plugin.limits.compile_cpu_s=5",
    "plugin.compiles_at_once=2",
];

/// The server's answer to an upload.
enum Answer {
    /// The server accepted the upload: the bytes happen to be a valid plugin.
    Taken,
    /// The server refused the upload with this code.
    Refused(String),
}

/// Runs the experiment of the claim `malformed-uploads`.
///
/// # Errors
/// Fails if the server does not start.
pub fn malformed_uploads(run: &mut crate::Run<'_>) -> Result<()> {
    let runtime = Runtime::new()?;
    let bases = Bases::load()?;
    let siege = runtime.block_on(AttackRun::begin(SETTINGS, run.seed()))?;
    let mut done = 0;
    while run.goes_on() {
        let count = A_LOOK.min(run.requested_cases() - done);
        let seeds: Vec<_> = (done..done + count).map(|n| run.seed().wrapping_add(n)).collect();
        let answers = runtime.block_on(async {
            let uploads = seeds.iter().map(|seed| upload(&siege, &bases, *seed));
            stream::iter(uploads).buffer_unordered(AT_ONCE).collect::<Vec<_>>().await
        });
        for (seed, answer) in answers {
            match answer {
                Ok(Answer::Taken) => run.add("taken", 1.0),
                Ok(Answer::Refused(code)) => run.add(&format!("refused_{code}"), 1.0),
                Err(error) => run.fail(seed, format!("{error:#}")),
            }
        }
        let unharmed = runtime.block_on(async {
            siege.victim.check().await?;
            siege.check_process(run).await
        });
        if let Err(error) = unharmed {
            run.fail(seeds[0], format!("after {count} uploads from this seed on: {error:#}"));
        }
        done += count;
        run.count(count);
    }
    runtime.block_on(async {
        run.add("victim_events", siege.victim.sent().await as f64);
        siege.victim.end().await
    })
}

async fn upload(siege: &AttackRun, bases: &Bases, seed: u64) -> (u64, Result<Answer>) {
    (seed, answer(siege, bases, seed).await)
}

/// Generates bytes from the seed, uploads them, and checks the answer. A plugin that
/// was accepted is deleted again.
async fn answer(siege: &AttackRun, bases: &Bases, seed: u64) -> Result<Answer> {
    let (how, bytes) = bases.malformed(&mut fastrand::Rng::with_seed(seed));
    let name = format!("m{seed}");
    let path = format!("/v1/projections/{name}/versions");
    let answer = siege.server.request(Method::POST, &path, "application/wasm", bytes).await;
    let (status, answer) = answer.with_context(|| format!("{how}: no answer"))?;
    if matches!(status, 200 | 201) {
        let path = format!("/v1/projections/{name}");
        let gone = siege.server.request(Method::DELETE, &path, "text/plain", Vec::new()).await?;
        ensure!(gone.0 == 204, "{how}: it was taken and cannot be deleted: {gone:?}");
        return Ok(Answer::Taken);
    }
    let code = answer["code"].as_str().unwrap_or_default().to_owned();
    let said = answer["detail"].as_str().is_some_and(|detail| !detail.is_empty());
    ensure!(
        (400..500).contains(&status) && code.starts_with("LAN-") && said,
        "{how}: {status}: {answer}"
    );
    Ok(Answer::Refused(code))
}

/// The inputs from which malformed uploads are generated.
struct Bases {
    /// Real plugins of several hundred kilobytes.
    real: Vec<Vec<u8>>,
    /// Small guests (modules and components) that compile quickly.
    small: Vec<Vec<u8>>,
    /// The custom section that declares a module to be a projection.
    metadata: Vec<u8>,
}

impl Bases {
    fn load() -> Result<Self> {
        let mut real = Vec::new();
        for name in ["revenue", "rate-alerts"] {
            let module = std::fs::read(guest(name))?;
            real.push(frame::component(&module)?);
            real.push(module);
        }
        let mut small = Vec::new();
        for guest in (0..Guest::COUNT).map(Guest::at) {
            let taken = matches!(guest.expected(), Expected::Parks(_) | Expected::Halts(_));
            if let (true, Guest::Text(_)) = (taken, guest) {
                let module = guest.build()?;
                small.push(frame::component(&module)?);
                small.push(module);
            }
        }
        let described = sections(&frame::build("plain", "")?, HEADER_BYTES)?;
        let metadata = described.into_iter().rfind(|(id, _)| *id == 0);
        Ok(Self { real, small, metadata: metadata.context("a guest without metadata")?.1 })
    }

    /// Generates a malformed upload, with a description of how it was generated.
    fn malformed(&self, random: &mut fastrand::Rng) -> (&'static str, Vec<u8>) {
        match random.u32(..16) {
            0 => ("random bytes", bytes(random, 4_096)),
            1 => ("a header and random bytes", headed(random)),
            2 => ("a plugin that is cut off", {
                let base = self.any(random);
                base[..random.usize(..base.len())].to_vec()
            }),
            // This is the most frequent kind, because it passes most of the host's checks.
            3 | 4 | 12..16 => ("a small guest with flipped bits", {
                let flips = random.usize(1..4);
                let base = self.small(random);
                flipped(random, base, flips)
            }),
            5 => ("a plugin with many flipped bits", {
                let flips = random.usize(1..200);
                let base = random.usize(..self.real.len());
                flipped(random, &self.real[base], flips)
            }),
            6 => ("two plugins spliced", {
                let (one, other) = (self.any(random), self.any(random));
                let (to, from) = (random.usize(..one.len()), random.usize(..other.len()));
                [&one[..to], &other[from..]].concat()
            }),
            7 => ("sections in another order", self.shuffled(random)),
            8 => ("custom sections gone wild", self.with_custom_sections(random)),
            9 => ("a generated module", smith(random)),
            10 => ("a generated module that says it is a projection", {
                let mut module = smith(random);
                section(&mut module, 0, &self.metadata);
                module
            }),
            _ => ("a component with a generated module", {
                let mut component = b"\0asm\x0D\0\x01\0".to_vec();
                section(&mut component, 1, &smith(random));
                section(&mut component, 2, b"\x01\0\0\0");
                component
            }),
        }
    }

    fn small(&self, random: &mut fastrand::Rng) -> &[u8] {
        &self.small[random.usize(..self.small.len())]
    }

    fn any(&self, random: &mut fastrand::Rng) -> &[u8] {
        let of = if random.u32(..4) == 0 { &self.real } else { &self.small };
        &of[random.usize(..of.len())]
    }

    /// Takes the sections of a small guest, and omits, duplicates or moves some.
    fn shuffled(&self, random: &mut fastrand::Rng) -> Vec<u8> {
        let base = self.small(random);
        let mut parts = sections(base, HEADER_BYTES).unwrap_or_default();
        for _ in 0..random.usize(1..4) {
            let (from, to) = (random.usize(..parts.len()), random.usize(..parts.len()));
            match random.u32(..3) {
                0 => parts.swap(from, to),
                1 => parts.insert(to, parts[from].clone()),
                _ if parts.len() > 1 => drop(parts.remove(from)),
                _ => {}
            }
        }
        let mut module = base[..HEADER_BYTES].to_vec();
        parts.iter().for_each(|(id, body)| section(&mut module, *id, body));
        module
    }

    fn with_custom_sections(&self, random: &mut fastrand::Rng) -> Vec<u8> {
        let base = self.small(random);
        let parts = sections(base, HEADER_BYTES).unwrap_or_default();
        let index = random.usize(..=parts.len());
        let mut module = base[..HEADER_BYTES].to_vec();
        for (n, (id, body)) in parts.iter().enumerate() {
            if n == index {
                for _ in 0..random.usize(1..20) {
                    section(&mut module, 0, &self.custom(random));
                }
            }
            section(&mut module, *id, body);
        }
        section(&mut module, 0, &self.custom(random));
        module
    }

    /// Generates a custom section with a name that the host knows, and with invalid or nearly valid
    /// content.
    fn custom(&self, random: &mut fastrand::Rng) -> Vec<u8> {
        if random.bool() {
            let flips = random.usize(1..5);
            return flipped(random, &self.metadata, flips);
        }
        let name = NAMES[random.usize(..NAMES.len())];
        let mut body = super::bombs::leb(name.len());
        // One section in four declares a name that is longer than the section.
        if random.u32(..4) == 0 {
            body = super::bombs::leb(random.usize(..1 << 30));
        }
        body.extend_from_slice(name.as_bytes());
        body.extend(bytes(random, 20_000));
        body
    }
}

fn bytes(random: &mut fastrand::Rng, len_max: usize) -> Vec<u8> {
    let mut bytes = vec![0; random.usize(..len_max)];
    random.fill(&mut bytes);
    bytes
}

fn headed(random: &mut fastrand::Rng) -> Vec<u8> {
    let header: &[u8] = if random.bool() { b"\0asm\x01\0\0\0" } else { b"\0asm\x0D\0\x01\0" };
    let mut module = header.to_vec();
    for _ in 0..random.usize(1..6) {
        let body = bytes(random, 200);
        section(&mut module, random.u8(..14), &body);
    }
    module
}

fn flipped(random: &mut fastrand::Rng, base: &[u8], flips: usize) -> Vec<u8> {
    let mut bytes = base.to_vec();
    for _ in 0..flips {
        let at = random.usize(..bytes.len());
        bytes[at] ^= 1 << random.u32(..8);
    }
    bytes
}

/// Generates a valid module with wasm-smith, with a random choice of proposals.
fn smith(random: &mut fastrand::Rng) -> Vec<u8> {
    let mut seed = vec![0; random.usize(16..8_192)];
    random.fill(&mut seed);
    let config = wasm_smith::Config {
        memory64_enabled: random.bool(),
        threads_enabled: random.bool(),
        gc_enabled: random.bool(),
        exceptions_enabled: random.bool(),
        tail_call_enabled: random.bool(),
        relaxed_simd_enabled: random.bool(),
        max_memories: random.usize(1..4),
        ..wasm_smith::Config::default()
    };
    // If the seed does not suffice, the seed itself is the malformed upload.
    wasm_smith::Module::new(config, &mut Unstructured::new(&seed))
        .map_or(seed.clone(), |module| module.to_bytes())
}
