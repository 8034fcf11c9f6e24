//! Projections that feed each other: a cycle of emitted and subscribed types
//! runs without end, so it is refused, unless every manifest on it sets
//! `cycle-depth-max`.

use std::collections::VecDeque;

use lantern_core::{Manifest, ProjectionRecord, VersionState};

use crate::{Engine, EngineError};

/// A projection, as far as the graph is concerned.
#[derive(Clone)]
struct Node {
    name: String,
    subscribes: lantern_core::TypeFilter,
    emits: Vec<String>,
    allows: bool,
}

impl Node {
    fn new(name: &str, manifest: &Manifest) -> Self {
        Self {
            name: name.to_owned(),
            subscribes: manifest.filter(),
            emits: manifest.emits.clone(),
            allows: manifest.cycle_depth_max.is_some(),
        }
    }

    /// A type that this one emits and `next` reads.
    fn feeds(&self, next: &Self) -> Option<&str> {
        self.emits.iter().find(|kind| next.subscribes.matches(kind)).map(String::as_str)
    }
}

impl Engine {
    /// Checks that a version of `projection` with `manifest` closes no cycle with the
    /// versions of other projections that serve readers or, if `upcoming`, are being
    /// built.
    ///
    /// # Errors
    /// [`EngineError::Cycle`], which names the cycle.
    pub(crate) fn check_cycles(
        &self,
        projection: &str,
        manifest: &Manifest,
        upcoming: bool,
    ) -> Result<(), EngineError> {
        if manifest.emits.is_empty() {
            return Ok(());
        }
        let mut nodes = vec![Node::new(projection, manifest)];
        for other in self.registry.read().values() {
            let record = &other.record;
            if record.name != projection {
                nodes.extend(counted(record, upcoming).map(|m| Node::new(&record.name, m)));
            }
        }
        refused(&nodes).map_or(Ok(()), |cycle| Err(EngineError::Cycle(cycle)))
    }
}

/// The manifests of a projection that emit, or may soon.
fn counted(record: &ProjectionRecord, upcoming: bool) -> impl Iterator<Item = &Manifest> {
    let counts = move |state: VersionState| match state {
        VersionState::Active => true,
        VersionState::Backfilling | VersionState::Ready => upcoming,
        VersionState::Retired => false,
    };
    record.versions.iter().filter(move |v| counts(v.state)).map(|v| &v.manifest)
}

/// The first cycle through node 0 that some manifest on it does not allow, for
/// people.
fn refused(nodes: &[Node]) -> Option<String> {
    (0..nodes.len()).filter(|&place| !nodes[place].allows).find_map(|place| {
        let mut cycle = path(nodes, 0, place)?;
        cycle.extend(path(nodes, place, 0)?);
        Some(described(nodes, &cycle))
    })
}

/// The nodes from `from` on a shortest way to `to`, without `to` itself: at least
/// one step.
fn path(nodes: &[Node], from: usize, to: usize) -> Option<Vec<usize>> {
    // From a node other than the first to itself there is nothing to go.
    if from == to && from == 0 && !nodes.iter().any(|next| nodes[0].feeds(next).is_some()) {
        return None;
    }
    let mut before: Vec<Option<usize>> = vec![None; nodes.len()];
    let mut queue = VecDeque::from([from]);
    while let Some(place) = queue.pop_front() {
        for next in 0..nodes.len() {
            if nodes[place].feeds(&nodes[next]).is_none() {
                continue;
            }
            if next == to {
                let mut way = vec![place];
                while let Some(previous) =
                    before[*way.last()?].filter(|_| way.last() != Some(&from))
                {
                    way.push(previous);
                }
                way.reverse();
                return Some(way);
            }
            if before[next].is_none() && next != from {
                before[next] = Some(place);
                queue.push_back(next);
            }
        }
    }
    None
}

fn described(nodes: &[Node], cycle: &[usize]) -> String {
    let mut steps = Vec::new();
    for (index, &place) in cycle.iter().enumerate() {
        let next = &nodes[cycle[(index + 1) % cycle.len()]];
        let node = &nodes[place];
        let kind = node.feeds(next).unwrap_or("?");
        steps.push(format!("`{}` emits `{kind}`, which `{}` reads", node.name, next.name));
    }
    let mut missing: Vec<_> =
        cycle.iter().map(|&p| &nodes[p]).filter(|n| !n.allows).map(|n| n.name.as_str()).collect();
    missing.sort_unstable();
    missing.dedup();
    format!("{} (`cycle-depth-max` is not set by `{}`)", steps.join("; "), missing.join("`, `"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(name: &str, subscribes: &str, emits: &[&str], depth: Option<u32>) -> Node {
        let manifest = Manifest {
            subscribes: vec![subscribes.into()],
            emits: emits.iter().map(|kind| (*kind).into()).collect(),
            cycle_depth_max: depth,
            ..Manifest::default()
        };
        Node::new(name, &manifest)
    }

    #[test]
    fn cycles_of_two_and_three_are_named_with_their_types() {
        let a = node("a", "x.*", &["y"], None);
        let b = node("b", "y", &["z", "q"], None);
        let c = node("c", "z", &["x.1"], None);
        assert_eq!(refused(&[a.clone(), b.clone()]), None, "a chain is no cycle");
        let cycle = refused(&[a.clone(), b.clone(), c.clone()]).unwrap();
        for step in ["`a` emits `y`, which `b` reads", "`b` emits `z`, which `c` reads"] {
            assert!(cycle.contains(step), "{cycle}");
        }
        assert!(cycle.contains("`c` emits `x.1`, which `a` reads"), "{cycle}");
        let back = node("back", "y", &["x.2"], None);
        let cycle = refused(&[back, a.clone()]).unwrap();
        assert!(cycle.contains("`back` emits `x.2`, which `a` reads; `a` emits `y`"), "{cycle}");
        // A cycle that the new one is no part of is not its fault.
        let other = node("other", "y", &["end"], None);
        assert_eq!(refused(&[other, a, b, c]), None);
    }

    #[test]
    fn a_cycle_is_allowed_only_if_every_manifest_on_it_allows_it() {
        let a = node("a", "x", &["y"], Some(3));
        let allowed = node("b", "y", &["x"], Some(3));
        let not = node("c", "y", &["x"], None);
        assert_eq!(refused(&[a.clone(), allowed.clone()]), None);
        let cycle = refused(&[a, allowed, not]).unwrap();
        assert!(cycle.contains("is not set by `c`)"), "{cycle}");
    }
}
