//! Peers: which nodes live, and whose should a partition be?
//!
//! Owns how long each has been silent, and the choice among those that live. Time is an argument.
//!
//! Invariants:
//! - A node is silent from when its latest beat was first *seen*, by this node's clock alone. Between two looks at most
//!   [`Peers::look`]'s `most` counts: while the store is away nobody can beat, and nobody ages.
//! - The choice depends on the rows alone: nodes that read the same choose the same. Where a node comes or goes, only
//!   partitions that it gets or had move. It goes by names, so that whoever comes back gets what it had.
//! - Whoever is chosen knows every receiver that the partition needs: each for which events may wait, but for those that
//!   no living node knows. Such a receiver was taken out of the settings, and what waits for it holds up no other.
//! - Nobody is chosen before its first beat: a row whose maker did not hear that it was made never gets one.
//!
//! Where two living nodes have one name, the one that came last is chosen: one of them stands in for a process that was
//! killed and is not buried yet.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use sha2::{Digest as _, Sha256};

use super::statement::{NodeId, NodeRow, PartitionRow};
use crate::event::partition::Partition;
use crate::lease::BootTime;
use crate::receiver::ReceiverName;

/// How well each partition suits a node; the highest one has it.
type Scores = [u64; Partition::COUNT];

#[derive(Debug, Default)]
pub struct Peers {
    nodes: BTreeMap<NodeId, Peer>,
    /// When they were last looked at.
    seen: Option<BootTime>,
    /// That some living node knows.
    receivers: BTreeSet<ReceiverName>,
}

#[derive(Debug)]
struct Peer {
    row: NodeRow,
    silent: Duration,
    scores: Scores,
}

impl Peers {
    /// Takes what was read now; since the last look at most so much time counts.
    pub fn look(&mut self, rows: Vec<NodeRow>, most: Duration, now: BootTime) {
        let passed = self.seen.map(|seen| now.saturating_since(seen).min(most)).unwrap_or_default();
        let mut known = std::mem::take(&mut self.nodes);
        self.seen = Some(now);
        self.nodes = rows
            .into_iter()
            .map(|row| {
                let before = known.remove(&row.id);
                (row.id, Peer::of(row, before, passed))
            })
            .collect();
        self.receivers = self.known_receivers();
    }

    /// The node is dead.
    pub fn bury(&mut self, node: NodeId) {
        if let Some(peer) = self.nodes.get_mut(&node) {
            peer.row.dead = true;
            self.receivers = self.known_receivers();
        }
    }

    /// The node has beaten, or is dead already: the next look tells, and until then it is not silent.
    pub fn spare(&mut self, node: NodeId) {
        if let Some(peer) = self.nodes.get_mut(&node) {
            peer.silent = Duration::ZERO;
        }
    }

    /// Whether there may be somebody who delivers what this node owns.
    pub fn may_deliver(&self, node: NodeId) -> bool {
        self.nodes.get(&node).is_some_and(|peer| !peer.row.dead)
    }

    /// One, but for this node, that has been silent for so long, and its beat of then.
    pub fn silent_for(&self, me: NodeId, lease_time: Duration) -> Option<(NodeId, u64)> {
        let peer = self.others(me).find(|peer| peer.silent >= lease_time)?;
        Some((peer.row.id, peer.row.beat))
    }

    /// When one, but for this node, will have been silent for so long, if nothing is heard of it.
    pub fn next_silent(&self, me: NodeId, lease_time: Duration) -> Option<BootTime> {
        let silent = self.others(me).map(|peer| peer.silent).max()?;
        Some(self.seen? + lease_time.saturating_sub(silent))
    }

    /// The node that should own the partition: of those that know its receivers the one whose score is highest, and
    /// rather one that reaches `main`. `None` where no node knows them all.
    pub fn choice(&self, partition: Partition, row: &PartitionRow) -> Option<NodeId> {
        let needed = || row.receivers.iter().filter(|needed| self.receivers.contains(*needed));
        let knows = |peer: &Peer| needed().all(|needed| peer.row.receivers.contains(needed));
        let knowing = || self.beating().filter(|peer| !peer.row.leaving && knows(peer));
        let best = |peer: &&Peer| (peer.scores[partition.number()], peer.row.id);
        let reaching = knowing().filter(|peer| !peer.row.cut).max_by_key(best);
        // Where nobody reaches it, moving partitions about helps nobody.
        let staying = || knowing().find(|peer| Some(peer.row.id) == row.owner);
        let chosen = reaching.or_else(staying).or_else(|| knowing().max_by_key(best))?;
        Some(chosen.row.id)
    }

    fn known_receivers(&self) -> BTreeSet<ReceiverName> {
        self.beating().flat_map(|peer| peer.row.receivers.iter().cloned()).collect()
    }

    fn beating(&self) -> impl Iterator<Item = &Peer> {
        self.living().filter(|peer| peer.row.beat > 0)
    }

    fn living(&self) -> impl Iterator<Item = &Peer> {
        self.nodes.values().filter(|peer| !peer.row.dead)
    }

    fn others(&self, me: NodeId) -> impl Iterator<Item = &Peer> {
        self.living().filter(move |peer| peer.row.id != me)
    }
}

impl Peer {
    fn of(row: NodeRow, known: Option<Self>, passed: Duration) -> Self {
        match known {
            Some(known) if known.row.beat == row.beat => {
                Self { row, silent: known.silent + passed, ..known }
            }
            Some(known) => Self { row, silent: Duration::ZERO, ..known },
            None => Self { scores: scores(&row.name), row, silent: Duration::ZERO },
        }
    }
}

/// Rendezvous hashing: what a node gets does not depend on who else is there.
pub fn scores(name: &str) -> Scores {
    std::array::from_fn(|partition| {
        let number = u64::try_from(partition).expect("there are few").to_be_bytes();
        let digest =
            Sha256::new_with_prefix(name).chain_update([0]).chain_update(number).finalize();
        let first = digest.first_chunk().expect("a SHA-256 has 32 bytes");
        u64::from_be_bytes(*first)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::statement::Epoch;

    const LEASE_TIME: Duration = Duration::from_millis(3000);
    const MOST: Duration = Duration::from_millis(750);

    fn at(ms: u64) -> BootTime {
        BootTime::after(Duration::from_millis(ms))
    }

    fn node(id: u64, name: &str) -> NodeRow {
        NodeRow {
            id: NodeId(id),
            name: name.into(),
            beat: 1,
            dead: false,
            leaving: false,
            cut: false,
            receivers: [ReceiverName::main()].into(),
        }
    }

    fn peers(rows: &[NodeRow]) -> Peers {
        let mut peers = Peers::default();
        peers.look(rows.to_vec(), MOST, at(0));
        peers
    }

    fn choices(peers: &Peers, row: &PartitionRow) -> Vec<Option<u64>> {
        let chosen = Partition::all().map(|partition| peers.choice(partition, row));
        chosen.map(|node| node.map(|NodeId(id)| id)).collect()
    }

    fn free() -> PartitionRow {
        PartitionRow { owner: None, epoch: Epoch(1), receivers: [ReceiverName::main()].into() }
    }

    #[test]
    fn a_node_is_silent_from_when_its_beat_was_first_seen() {
        let (mut peers, mut other) = (Peers::default(), node(2, "b"));
        for (ms, beat, silent) in
            [(0, 7, 0), (750, 8, 0), (1500, 8, 750), (2200, 8, 1450), (2950, 8, 2200), (3700, 9, 0)]
        {
            other.beat = beat;
            peers.look(vec![node(1, "a"), other.clone()], MOST, at(ms));
            let next = at(ms) + LEASE_TIME.saturating_sub(Duration::from_millis(silent));
            assert_eq!(peers.next_silent(NodeId(1), LEASE_TIME), Some(next), "at {ms} ms");
        }
    }

    #[test]
    fn it_has_been_silent_for_long_enough_at_the_very_time_that_was_foretold() {
        let (mut peers, mut now) = (Peers::default(), at(10));
        let rows = vec![node(1, "a"), node(2, "b"), NodeRow { dead: true, ..node(3, "c") }];
        while peers.silent_for(NodeId(1), LEASE_TIME).is_none() {
            now = peers.next_silent(NodeId(1), LEASE_TIME).map_or(now, |at| at.min(now + MOST));
            peers.look(rows.clone(), MOST, now);
        }
        assert_eq!(peers.silent_for(NodeId(1), LEASE_TIME), Some((NodeId(2), 1)));
        assert_eq!(now, at(10) + LEASE_TIME);
    }

    #[test]
    fn an_outage_of_the_store_ages_nobody() {
        let mut peers = peers(&[node(1, "a"), node(2, "b")]);
        peers.look(vec![node(1, "a"), node(2, "b")], MOST, at(3_600_000));
        assert_eq!(peers.silent_for(NodeId(1), LEASE_TIME), None);
    }

    #[test]
    fn a_few_nodes_share_fairly() {
        for (count, least, most) in [(1, 64, 64), (2, 22, 42), (3, 12, 32), (4, 6, 28), (8, 2, 18)]
        {
            for series in 0..20 {
                let rows: Vec<_> =
                    (1..=count).map(|id| node(id, &format!("callhook-{series}-{id}"))).collect();
                let chosen = choices(&peers(&rows), &free());
                for id in 1..=count {
                    let share = chosen.iter().filter(|chosen| **chosen == Some(id)).count();
                    assert!((least..=most).contains(&share), "{share} of {count}, series {series}");
                }
            }
        }
    }

    #[test]
    fn only_what_a_node_gets_or_had_moves_when_it_comes_or_goes() {
        let [two, three] = [2, 3].map(|count| {
            let rows: Vec<_> = (1..=count).map(|id| node(id, &format!("node-{id}"))).collect();
            choices(&peers(&rows), &free())
        });
        let moved = two.iter().zip(&three).filter(|(two, three)| two != three);
        assert!(moved.clone().all(|(_, three)| *three == Some(3)));
        assert!((10..=32).contains(&moved.count()));
    }

    #[test]
    fn a_node_that_comes_back_under_its_name_gets_what_it_had() {
        let before = choices(&peers(&[node(1, "a"), node(2, "b")]), &free());
        let old = NodeRow { dead: true, ..node(2, "b") };
        let after = choices(&peers(&[node(1, "a"), old, node(3, "b")]), &free());
        let renamed = before.iter().map(|id| if *id == Some(2) { Some(3) } else { *id });
        assert_eq!(after, renamed.collect::<Vec<_>>());
        let unburied = choices(&peers(&[node(1, "a"), node(2, "b"), node(3, "b")]), &free());
        assert_eq!(unburied, after);
    }

    #[test]
    fn whoever_owns_a_partition_knows_its_receivers_but_those_that_nobody_knows() {
        let (one, two) = (ReceiverName::main(), "crm".parse::<ReceiverName>().unwrap());
        let waiting = |receivers: &[&ReceiverName]| PartitionRow {
            receivers: receivers.iter().copied().cloned().collect(),
            ..free()
        };
        let old = node(1, "a");
        let new = NodeRow { receivers: [one.clone(), two.clone()].into(), ..node(2, "b") };
        let rolling = peers(&[old.clone(), new]);
        assert!(choices(&rolling, &waiting(&[&one, &two])).iter().all(|node| *node == Some(2)));
        assert!(choices(&rolling, &waiting(&[&one])).contains(&Some(1)));
        let taken_out = peers(&[old.clone(), node(2, "b")]);
        assert!(choices(&taken_out, &waiting(&[&one, &two])).contains(&Some(1)));
        let apart = peers(&[old, NodeRow { receivers: [two.clone()].into(), ..node(2, "b") }]);
        assert!(choices(&apart, &waiting(&[&one, &two])).iter().all(Option::is_none));
    }

    #[test]
    fn a_node_that_leaves_or_is_dead_is_never_chosen() {
        let leaving = NodeRow { leaving: true, ..node(2, "b") };
        let dead = NodeRow { dead: true, ..node(3, "c") };
        let mut peers = peers(&[node(1, "a"), leaving, dead]);
        assert!(choices(&peers, &free()).iter().all(|node| *node == Some(1)));
        peers.bury(NodeId(1));
        assert!(choices(&peers, &free()).iter().all(Option::is_none));
    }

    #[test]
    fn a_node_is_chosen_only_once_it_has_beaten() {
        let made = NodeRow { beat: 0, ..node(2, "a") };
        let chosen = choices(&peers(&[node(1, "a"), made]), &free());
        assert!(chosen.iter().all(|node| *node == Some(1)));
    }

    #[test]
    fn one_that_reaches_the_receiver_is_chosen_and_where_none_does_all_stays() {
        let cut = |row| NodeRow { cut: true, ..row };
        let (a, b) = (node(1, "a"), node(2, "b"));
        let owned = PartitionRow { owner: Some(NodeId(2)), ..free() };
        for (rows, chosen) in [
            ([cut(a.clone()), b.clone()], 2),
            ([a.clone(), cut(b.clone())], 1),
            ([cut(a), cut(b)], 2),
        ] {
            assert!(choices(&peers(&rows), &owned).iter().all(|node| *node == Some(chosen)));
        }
    }
}
