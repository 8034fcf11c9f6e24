//! Finds cycles of projections. In a cycle, each projection emits an event type to which the next
//! one subscribes. A cycle could run without end. So it is allowed only if every manifest in it
//! sets `cycle-depth-max`.

use std::collections::VecDeque;

use lantern_core::{Manifest, ProjectionRecord, VersionState};

use crate::{Engine, EngineError};

/// A version of a projection, as a node of a graph. Cycles are searched in this graph.
#[derive(Clone)]
struct ProjectionNode {
    name: String,
    subscribes: lantern_core::TypeFilter,
    emits: Vec<String>,
    allows: bool,
}

impl ProjectionNode {
    fn new(name: &str, manifest: &Manifest) -> Self {
        Self {
            name: name.to_owned(),
            subscribes: manifest.filter(),
            emits: manifest.emits.clone(),
            allows: manifest.cycle_depth_max.is_some(),
        }
    }

    /// Returns an event type that this projection emits and to which `next` subscribes.
    fn feeds(&self, next: &Self) -> Option<&str> {
        self.emits.iter().find(|kind| next.subscribes.matches(kind)).map(String::as_str)
    }
}

impl Engine {
    /// Checks that a version of `projection` with `manifest` does not complete a forbidden cycle. A
    /// cycle is allowed if every manifest in it allows it. The check includes the active versions
    /// of other projections. If `upcoming` is set, it also includes their versions that backfill or
    /// are ready.
    ///
    /// # Errors
    /// Returns [`EngineError::Cycle`], which names the cycle.
    pub(crate) fn check_cycles(
        &self,
        projection: &str,
        manifest: &Manifest,
        upcoming: bool,
    ) -> Result<(), EngineError> {
        if manifest.emits.is_empty() {
            return Ok(());
        }
        let mut nodes = vec![ProjectionNode::new(projection, manifest)];
        for other in self.registry.read().values() {
            let record = &other.record;
            if record.name != projection {
                nodes.extend(
                    counted(record, upcoming).map(|m| ProjectionNode::new(&record.name, m)),
                );
            }
        }
        find_forbidden_cycle(&nodes).map_or(Ok(()), |cycle| Err(EngineError::Cycle(cycle)))
    }
}

/// Returns the manifests of a projection that the check includes: that of the active version and,
/// if `upcoming` is set, those of versions that backfill or are ready.
fn counted(record: &ProjectionRecord, upcoming: bool) -> impl Iterator<Item = &Manifest> {
    let counts = move |state: VersionState| match state {
        VersionState::Active => true,
        VersionState::Backfilling | VersionState::Ready => upcoming,
        VersionState::Retired => false,
    };
    record.versions.iter().filter(move |v| counts(v.state)).map(|v| &v.manifest)
}

/// Returns the first forbidden cycle through node 0, as text; `None` if there is none. A cycle is
/// forbidden if a manifest in it does not allow cycles.
fn find_forbidden_cycle(nodes: &[ProjectionNode]) -> Option<String> {
    (0..nodes.len()).filter(|&index| !nodes[index].allows).find_map(|index| {
        let mut cycle = path(nodes, 0, index)?;
        cycle.extend(path(nodes, index, 0)?);
        Some(described(nodes, &cycle))
    })
}

/// Returns the nodes on a shortest path from `from` to `to`, without `to` itself. The path has at
/// least one step.
fn path(nodes: &[ProjectionNode], from: usize, to: usize) -> Option<Vec<usize>> {
    // If no projection subscribes to what node 0 emits, there is no cycle through node 0.
    if from == to && from == 0 && !nodes.iter().any(|next| nodes[0].feeds(next).is_some()) {
        return None;
    }
    let mut before: Vec<Option<usize>> = vec![None; nodes.len()];
    let mut queue = VecDeque::from([from]);
    while let Some(index) = queue.pop_front() {
        for next in 0..nodes.len() {
            if nodes[index].feeds(&nodes[next]).is_none() {
                continue;
            }
            if next == to {
                let mut reversed = vec![index];
                while let Some(previous) =
                    before[*reversed.last()?].filter(|_| reversed.last() != Some(&from))
                {
                    reversed.push(previous);
                }
                reversed.reverse();
                return Some(reversed);
            }
            if before[next].is_none() && next != from {
                before[next] = Some(index);
                queue.push_back(next);
            }
        }
    }
    None
}

fn described(nodes: &[ProjectionNode], cycle: &[usize]) -> String {
    let mut steps = Vec::new();
    for (step, &index) in cycle.iter().enumerate() {
        let next = &nodes[cycle[(step + 1) % cycle.len()]];
        let node = &nodes[index];
        let kind = node.feeds(next).unwrap_or("?");
        steps.push(format!("`{}` emits `{kind}`, to which `{}` subscribes", node.name, next.name));
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

    fn node(name: &str, subscribes: &str, emits: &[&str], depth: Option<u32>) -> ProjectionNode {
        let manifest = Manifest {
            subscribes: vec![subscribes.into()],
            emits: emits.iter().map(|kind| (*kind).into()).collect(),
            cycle_depth_max: depth,
            ..Manifest::default()
        };
        ProjectionNode::new(name, &manifest)
    }

    #[test]
    fn cycles_of_two_and_three_are_named_with_their_types() {
        let a = node("a", "x.*", &["y"], None);
        let b = node("b", "y", &["z", "q"], None);
        let c = node("c", "z", &["x.1"], None);
        assert_eq!(find_forbidden_cycle(&[a.clone(), b.clone()]), None, "a chain is no cycle");
        let cycle = find_forbidden_cycle(&[a.clone(), b.clone(), c.clone()]).unwrap();
        for step in
            ["`a` emits `y`, to which `b` subscribes", "`b` emits `z`, to which `c` subscribes"]
        {
            assert!(cycle.contains(step), "{cycle}");
        }
        assert!(cycle.contains("`c` emits `x.1`, to which `a` subscribes"), "{cycle}");
        let back = node("back", "y", &["x.2"], None);
        let cycle = find_forbidden_cycle(&[back, a.clone()]).unwrap();
        assert!(
            cycle.contains("`back` emits `x.2`, to which `a` subscribes; `a` emits `y`"),
            "{cycle}"
        );
        // A cycle that does not contain the new version is no reason to refuse it.
        let other = node("other", "y", &["end"], None);
        assert_eq!(find_forbidden_cycle(&[other, a, b, c]), None);
    }

    #[test]
    fn a_cycle_is_allowed_only_if_every_manifest_on_it_allows_it() {
        let a = node("a", "x", &["y"], Some(3));
        let allowed = node("b", "y", &["x"], Some(3));
        let not = node("c", "y", &["x"], None);
        assert_eq!(find_forbidden_cycle(&[a.clone(), allowed.clone()]), None);
        let cycle = find_forbidden_cycle(&[a, allowed, not]).unwrap();
        assert!(cycle.contains("is not set by `c`)"), "{cycle}");
    }
}
