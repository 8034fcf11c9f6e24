//! The corpus: every hostile guest with what must come of it. A file of
//! `tests/guests/hostile` without its line here does not compile.

use anyhow::Result;

use super::bombs::Bomb;
use super::frame;

#[allow(missing_docs, reason = "made by build.rs, of the names of files")]
mod files {
    include!(concat!(env!("OUT_DIR"), "/files.rs"));
}

pub use files::File;

/// What must come of a guest, and the words that a person must see.
#[derive(Clone, Copy, Debug)]
pub enum Expected {
    /// Its upload is answered with this code, and a detail with these words.
    Refused(&'static str, &'static str),
    /// The same, where the log holds events for it already, so that its upload
    /// is checked against them. Without any it may be taken.
    RefusedOverEvents(&'static str, &'static str),
    /// It is taken, and each of its events is parked for a reason with these
    /// words.
    Parks(&'static str),
    /// It is taken and harmless: nothing is parked, and its public table holds
    /// rows under these keys.
    Folds(&'static [&'static str]),
    /// It is taken, and halted by its first event for a reason with these words.
    Halts(&'static str),
}

/// A guest of the corpus.
#[derive(Clone, Copy, Debug)]
pub enum Guest {
    /// Of a text.
    Text(File),
    /// Made by code.
    Made(Bomb),
}

impl Guest {
    /// How many there are.
    pub const COUNT: u64 = (File::ALL.len() + Bomb::ALL.len()) as u64;

    /// The guest of this place, which is any number.
    #[must_use]
    pub fn at(place: u64) -> Self {
        let place = usize::try_from(place % Self::COUNT).unwrap_or_default();
        match Bomb::ALL.get(place) {
            Some(bomb) => Self::Made(*bomb),
            None => Self::Text(File::ALL[place - Bomb::ALL.len()]),
        }
    }

    /// Its name.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Text(file) => file.name(),
            Self::Made(bomb) => bomb.name(),
        }
    }

    /// Makes it.
    ///
    /// # Errors
    /// Where its text is wrong.
    pub fn build(self) -> Result<Vec<u8>> {
        match self {
            Self::Text(file) => frame::build(file.name(), file.text()),
            Self::Made(bomb) => bomb.build(),
        }
    }

    /// What must come of it.
    #[must_use]
    pub fn expected(self) -> Expected {
        match self {
            Self::Text(file) => of_file(file),
            Self::Made(bomb) => of_bomb(bomb),
        }
    }
}

fn of_bomb(bomb: Bomb) -> Expected {
    use Bomb as B;
    use Expected::{Folds, Refused};
    match bomb {
        B::HugeFunction | B::ManyFunctions => Refused("LAN-0114", "compile_cpu_s"),
        B::DeepBlocks | B::HugeJumpTables => Folds(&[]),
        B::ManyLocals => Folds(&[]),
        B::LocalsInEach => Refused("LAN-0114", "compile_cpu_s"),
        B::DoublingTypes => Refused("LAN-0107", "limit"),
        B::NestedTypes => Refused("LAN-0107", "too deep"),
        B::NestedComponents => Refused("LAN-0112", "no projection"),
        B::ManyTables => Refused("LAN-0106", "tables count exceeds limit of 100"),
        B::ManyMemories => Refused("LAN-0119", "memories_max"),
        B::ManyInstances => Refused("LAN-0119", "core_instances_max"),
        B::OtherSignature => Refused("LAN-0111", "parameters: u32"),
        B::TooLarge => Refused("LAN-0102", "upload_bytes_max"),
        B::HugeCustomSections => Folds(&[]),
        B::Empty => Refused("LAN-0101", "it is empty"),
    }
}

const FUEL: Expected = Expected::Parks("it used up its fuel");
const FUEL_SETUP: Expected = Expected::Refused("LAN-0122", "used up its fuel");

#[allow(clippy::too_many_lines, reason = "a table: one line a guest")]
fn of_file(file: File) -> Expected {
    use Expected::{Folds, Halts, Parks, Refused, RefusedOverEvents};
    use File as F;
    match file {
        F::BurnsWhatItMay => RefusedOverEvents("LAN-0209", "engine.check_fuel"),
        F::ReallocLiesAtOnce => Refused("LAN-0121", "beyond end of memory"),
        F::LoopInSetup | F::LoopInStart | F::LoopInPostReturn => FUEL_SETUP,
        F::TrapInStart => Refused("LAN-0121", "`unreachable` was executed"),
        F::TrapInPostReturn => Parks("`unreachable` was executed"),
        F::LoopInApply
        | F::LoopInRealloc
        | F::LoopByBrTable
        | F::LoopByCallIndirect
        | F::LoopOfFills
        | F::LoopOfCopies
        | F::LoopOfEmptyBulk
        | F::LoopOfTableFills
        | F::LoopOfRefusedMemory
        | F::LoopOfRefusedTables
        | F::LoopOfTinyGrowth
        | F::LoopInDeadCode
        | F::LoopOfHostCalls
        | F::LoopOfLooksAtTheClock
        | F::LoopOfRandomness
        | F::LoopOfWaits
        | F::ScanWithoutEnd
        | F::OutputFlood
        | F::LogFlood => FUEL,
        F::Recursion | F::RecursionThroughTable => Parks("call stack exhausted"),
        F::MemoryGrowth => Parks("64 MiB of memory"),
        F::TableGrowth => Parks("table_elements_max"),
        F::MemoryToBeginWith => Refused("LAN-0119", "64 MiB of memory"),
        F::TableToBeginWith => Refused("LAN-0119", "table_elements_max"),
        F::TwoMemories => Refused("LAN-0107", "multi"),
        F::HugeListLifted | F::StringPastTheEnd => Refused("LAN-0121", "out of bounds"),
        F::HugeStringLifted => Parks("host_call_bytes_max"),
        F::OneStringAMillionTimes | F::MillionsOfEmptyStrings => {
            Refused("LAN-0121", "host_call_bytes_max")
        }
        F::ManifestOfMegabytes => Refused("LAN-0124", "bytes of text"),
        F::ManifestChanges | F::ManifestBySurroundings => Folds(&[]),
        F::ManifestNameIsAPath => Refused("LAN-0124", "`../x`"),
        F::ManifestNotUtf8 => Refused("LAN-0121", "utf-8"),
        F::ManifestTakesOwnEvents => Refused("LAN-0124", "never end"),
        F::TablesInSetup => Refused("LAN-0121", "outside of `apply`"),
        F::HandleFlood | F::HandleFloodOfWaits => Parks("resource"),
        F::HandleThatDangles | F::HandleDroppedTwice => Parks("handle"),
        F::RandomFlood => Parks("random bytes"),
        F::Exit => Parks("exit code 1"),
        F::LogOfMegabytes => Parks("host_call_bytes_max"),
        F::EmitFlood => Parks("call_emit_max"),
        F::EmitUndeclared => Parks("`emits` does not name it"),
        F::EmitOfTheFuture => Parks("named as a cause"),
        F::EmitNotJson => Parks("is not JSON"),
        F::EmitPastTheEnd => Parks("out of bounds"),
        F::MillionRows | F::MillionTimers => Parks("call_write_bytes_max"),
        F::KeyOfMegabytes => Parks("key_bytes_max"),
        F::ValueOfMegabytes => Parks("value_bytes_max"),
        F::KeyNotUtf8 => Parks("utf-8"),
        F::KeysNotUtf8 | F::KeysCutWithinACharacter => Parks("not UTF-8"),
        F::EndsNotRising | F::EndsPastTheEnd | F::EndsShortOfTheEnd => Parks("not a column"),
        F::FewerValuesThanKeys => Parks("2 keys but 1 values"),
        F::ManyEmptyKeys => FUEL,
        F::ScanOfTooMuch => Parks("scan_rows_max"),
        F::UndeclaredTable => Parks("there is no table"),
        F::OtherTenant => Parks("does not begin with the tenant of the event"),
        F::RowNotJson => Parks("is not a JSON object"),
        F::BlamesNobody => Parks("it blames 4294967295"),
        F::ReadsTheClock | F::ReadsRandomness | F::CountsItsCalls => {
            RefusedOverEvents("LAN-0208", "not deterministic")
        }
        F::TrapsOnThirdCall => Folds(&["key"]),
        F::ReadsNanPayloads => Folds(&["sam"]),
        F::ReallocOutOfBounds | F::ReallocUnaligned => Parks("realloc"),
        F::ReallocOverlapping => Folds(&[]),
        F::ReallocOverTheAnswer => Parks("invalid"),
        F::ReallocTraps => Parks("`unreachable` was executed"),
        F::ReallocCallsBack => Parks("cannot leave"),
        F::CorruptsItself => Parks("invalid"),
        F::AnswerPastTheEnd => Parks("out of bounds"),
        F::AnswerUnaligned => Parks("align"),
        F::ExportOfWrongType => Refused("LAN-0106", "apply"),
        F::FeatureMemory64 => Refused("LAN-0107", "incorrect signature"),
        F::FeatureThreads => Refused("LAN-0107", "shared"),
        F::FeatureAtomics => Refused("LAN-0107", "threads"),
        F::FeatureRelaxedSimd => Refused("LAN-0107", "relaxed SIMD"),
        F::FeatureExceptions => Refused("LAN-0107", "exceptions"),
        F::FeatureGc => Refused("LAN-0107", "gc"),
        F::FeatureTailCalls => Refused("LAN-0107", "tail calls"),
        F::FeatureStackSwitching => Refused("LAN-0107", "stack switching"),
        F::FeatureWideArithmetic => Refused("LAN-0107", "wide arithmetic"),
        F::FeatureCustomPageSizes => Refused("LAN-0107", "custom page sizes"),
        F::ImportSockets | F::ImportHttp => Refused("LAN-0110", "no network"),
        F::ImportOtherWasi => Refused("LAN-0110", "not there for a projection"),
        F::ImportLaterWasi => Refused("LAN-0110", "WASI 0.2"),
        F::ImportUnknown => Refused("LAN-0108", "`evil:host/shell@1.0.0`"),
        F::ImportOfUnknownFunction => Refused("LAN-0108", "drop-all"),
        F::ImportOfLaterContract => Refused("LAN-0109", "version 0.9.0"),
        F::ExportsNothing => Refused("LAN-0112", "no projection"),
        F::ImportEnv => Refused("LAN-0105", "`system` from `env`"),
        F::ImportPreview1 => Refused("LAN-0105", "preview 1"),
        F::SaysNothing => Refused("LAN-0104", "component-type"),
        F::Halts => Halts("`unreachable` was executed"),
    }
}
