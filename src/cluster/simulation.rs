//! Several nodes and one store, in simulated time: nodes are killed, frozen and cut off, the store is away, statements are
//! done late and answers get lost. Whatever happens, no partition has two owners; soon after the last fault each has
//! the one that it should have, and nothing moves any more.
//!
//! A lease counts for as long as it holds by its node's own clock, whatever the node does, killed ones included; each
//! clock begins at another time and runs at another speed.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap};
use std::time::Duration;

use proptest::prelude::*;
use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};

use super::ownership::{Next, Occurrence, Order, Ownership, OwnershipSettings};
use super::statement::{Epoch, NodeId, NodeRow, PartitionRow, Statement, View};
use crate::event::partition::Partition;
use crate::lease::{BootTime, Lease};
use crate::receiver::ReceiverName;

/// All times are in microseconds.
const MS: u64 = 1000;
const LEASE_TIME: u64 = 3000 * MS;

/// What a node waits for an answer.
const PATIENCE: u64 = 1000 * MS;

/// How long after the last fault every partition has its owner.
const TAKEOVER: u64 = LEASE_TIME / 4 * 5 + 1000 * MS;

const NODES: usize = 4;

/// A receiver beside the main one.
const COPY: &str = "crm";

/// Those with events for the copy, too.
const WITH_COPY: usize = 16;

#[derive(Clone, Copy, Debug)]
enum Fault {
    /// It runs from now on, if it does not; with a receiver more, or without.
    Start {
        node: usize,
        copy: bool,
    },
    Kill {
        node: usize,
    },
    Stop {
        node: usize,
    },
    Freeze {
        node: usize,
        time: u64,
    },
    /// The store answers nobody.
    Outage {
        time: u64,
    },
    /// The store does not answer this node.
    CutOff {
        node: usize,
        time: u64,
    },
    /// It finds the receiver down, until it reaches it again.
    Unreached {
        node: usize,
        time: u64,
    },
}

#[derive(Debug)]
enum Happening {
    Fault(Fault),
    Wake {
        process: usize,
        wake: u64,
    },
    Occurs {
        process: usize,
        what: Occurrence,
    },
    /// A statement reaches the store.
    Arrives {
        process: usize,
        number: u64,
        statement: Statement,
    },
    Answer {
        process: usize,
        number: u64,
        answer: Occurrence,
    },
    Quiet {
        process: usize,
        partition: Partition,
        lease: usize,
    },
}

#[derive(Default)]
struct Store {
    nodes: BTreeMap<NodeId, NodeRow>,
    partitions: Vec<PartitionRow>,
    made: u64,
}

struct Process {
    node: usize,
    ownership: Ownership,
    killed: bool,
    frozen_until: u64,
    /// When the clock began, and how fast it runs.
    began: u64,
    speed: f64,
    /// The last statement sent, if it is not answered.
    asked: Option<u64>,
    wake: u64,
    /// Of what it delivers, by the number of the lease; and what is about to end.
    delivers: BTreeMap<Partition, usize>,
    ending: BTreeMap<Partition, usize>,
}

struct World {
    now: u64,
    order: u64,
    ahead: BinaryHeap<Reverse<(u64, u64, usize)>>,
    happenings: Vec<Option<Happening>>,
    store: Store,
    /// All that ever ran; the last one of a node is the one that runs.
    processes: Vec<Process>,
    leases: Vec<(usize, Partition, Lease)>,
    statements: u64,
    outage_until: u64,
    cut_off_until: [u64; NODES],
    random: StdRng,
    /// Whether statements are late, and notifications get lost.
    rough: bool,
    /// When the last fault was over.
    calm_since: u64,
    orders: usize,
}

fn receivers(with_copy: bool) -> BTreeSet<ReceiverName> {
    let copy = with_copy.then(|| COPY.parse().unwrap());
    [ReceiverName::main()].into_iter().chain(copy).collect()
}

impl Store {
    fn new() -> Self {
        let row = |partition: Partition| PartitionRow {
            receivers: receivers(partition.number() < WITH_COPY),
            ..PartitionRow::default()
        };
        Self { partitions: Partition::all().map(row).collect(), ..Self::default() }
    }

    fn lives(&self, node: NodeId) -> bool {
        self.nodes.get(&node).is_some_and(|row| !row.dead)
    }

    fn set_dead(&mut self, node: NodeId) {
        if let Some(row) = self.nodes.get_mut(&node) {
            row.dead = true;
        }
    }

    fn change(
        &mut self,
        partitions: Vec<(Partition, Epoch)>,
        from: impl Fn(Option<NodeId>) -> bool,
        to: Option<NodeId>,
    ) -> Vec<(Partition, Epoch)> {
        let mut changed = Vec::new();
        for (partition, epoch) in partitions {
            let row = &mut self.partitions[partition.number()];
            if row.epoch == epoch && from(row.owner) {
                (row.owner, row.epoch) = (to, Epoch(epoch.0 + 1));
                changed.push((partition, row.epoch));
            }
        }
        changed
    }

    fn run(&mut self, statement: Statement) -> Occurrence {
        match statement {
            Statement::Join { name, receivers, former } => {
                former.into_iter().for_each(|former| self.set_dead(former));
                self.made += 1;
                let (id, leaving, cut) = (NodeId(self.made), false, false);
                let row = NodeRow { id, name, beat: 0, dead: false, leaving, cut, receivers };
                self.nodes.insert(id, row);
                Occurrence::Joined(id)
            }
            Statement::Beat { me, leaving, cut } => {
                let Some(row) = self.nodes.get_mut(&me).filter(|row| !row.dead) else {
                    return Occurrence::NotLiving;
                };
                row.beat += 1;
                (row.leaving, row.cut) = (leaving, cut);
                let partitions = self.partitions.clone().try_into().unwrap();
                let nodes = self.nodes.values().cloned().collect();
                Occurrence::Beaten(Box::new(View { nodes, partitions }))
            }
            Statement::Bury { node, beat } => {
                let row = self.nodes.get_mut(&node).filter(|row| !row.dead && row.beat == beat);
                Occurrence::Buried(row.map(|row| row.dead = true).is_some())
            }
            Statement::Claim { me, partitions } => Occurrence::Claimed(match self.lives(me) {
                true => self.change(partitions, |_| true, Some(me)),
                false => Vec::new(),
            }),
            Statement::Release { me, partitions } => {
                self.change(partitions, |owner| owner == Some(me), None);
                Occurrence::Released
            }
            Statement::Leave { me } => {
                self.nodes.remove(&me);
                for row in self.partitions.iter_mut().filter(|row| row.owner == Some(me)) {
                    (row.owner, row.epoch) = (None, Epoch(row.epoch.0 + 1));
                }
                Occurrence::Left
            }
        }
    }
}

impl Process {
    fn clock(&self, now: u64) -> BootTime {
        let passed = (now - self.began) as f64 * self.speed;
        // Every machine was started at another time.
        BootTime::after(Duration::from_secs(self.began) + Duration::from_secs_f64(passed / 1e6))
    }

    /// When its clock will show that time.
    fn when(&self, time: BootTime) -> u64 {
        let started = BootTime::after(Duration::from_secs(self.began));
        let passed = time.saturating_since(started).as_secs_f64() * 1e6 / self.speed;
        self.began + passed as u64
    }
}

impl World {
    fn new(seed: u64) -> Self {
        Self {
            now: 0,
            order: 0,
            ahead: BinaryHeap::new(),
            happenings: Vec::new(),
            store: Store::new(),
            processes: Vec::new(),
            leases: Vec::new(),
            statements: 0,
            outage_until: 0,
            cut_off_until: [0; NODES],
            random: StdRng::seed_from_u64(seed),
            rough: true,
            calm_since: 0,
            orders: 0,
        }
    }

    fn at(&mut self, time: u64, happening: Happening) {
        self.order += 1;
        self.ahead.push(Reverse((time.max(self.now), self.order, self.happenings.len())));
        self.happenings.push(Some(happening));
    }

    fn run_until(&mut self, end: u64) {
        while let Some(Reverse((time, _, number))) = self.ahead.peek().copied()
            && time <= end
        {
            self.ahead.pop();
            self.now = time;
            let happening = self.happenings[number].take().expect("each happens once");
            self.happen(happening);
            self.check_owners();
        }
        self.now = end;
        self.check_owners();
    }

    /// No partition has two owners.
    fn check_owners(&mut self) {
        let (processes, now) = (&self.processes, self.now);
        self.leases.retain(|(process, _, lease)| lease.holds_at(processes[*process].clock(now)));
        let mut owned = BTreeMap::new();
        for (process, partition, _) in &self.leases {
            let other = owned.insert(*partition, *process);
            assert_eq!(other, None, "process {process} owns {partition}, too, at {now}");
        }
    }

    fn happen(&mut self, happening: Happening) {
        match happening {
            Happening::Fault(fault) => self.fault(fault),
            Happening::Wake { process, wake } => {
                if self.processes[process].wake == wake {
                    self.occur(process, Occurrence::Time);
                }
            }
            Happening::Occurs { process, what } => self.occur(process, what),
            Happening::Arrives { process, number, statement } => {
                self.arrive(process, number, statement);
            }
            Happening::Answer { process, number, answer } => {
                let until = self.processes[process].frozen_until;
                if until > self.now {
                    return self.at(until, Happening::Answer { process, number, answer });
                }
                if self.processes[process].asked == Some(number) {
                    self.processes[process].asked = None;
                    self.occur(process, answer);
                }
            }
            Happening::Quiet { process, partition, lease } => {
                let until = self.processes[process].frozen_until;
                if until > self.now {
                    return self.at(until, Happening::Quiet { process, partition, lease });
                }
                if self.processes[process].ending.get(&partition) == Some(&lease) {
                    self.processes[process].ending.remove(&partition);
                    self.occur(process, Occurrence::Quiet(partition));
                }
            }
        }
    }

    fn running(&self, node: usize) -> Option<usize> {
        let last = self.processes.iter().rposition(|process| process.node == node)?;
        let process = &self.processes[last];
        (!process.killed && !process.ownership.is_gone()).then_some(last)
    }

    fn fault(&mut self, fault: Fault) {
        let (now, mut over) = (self.now, self.now);
        match fault {
            Fault::Start { node, copy } => {
                if self.running(node).is_none() {
                    self.start(node, copy);
                }
            }
            Fault::Kill { node } => {
                if let Some(process) = self.running(node) {
                    self.processes[process].killed = true;
                }
            }
            Fault::Stop { node } => {
                if let Some(process) = self.running(node) {
                    self.occur(process, Occurrence::Stop);
                }
            }
            Fault::Freeze { node, time } => {
                if let Some(process) = self.running(node) {
                    over = now + time;
                    let until = &mut self.processes[process].frozen_until;
                    *until = over.max(*until);
                }
            }
            Fault::Outage { time } => {
                over = now + time;
                self.outage_until = over.max(self.outage_until);
            }
            Fault::CutOff { node, time } => {
                over = now + time;
                self.cut_off_until[node] = over.max(self.cut_off_until[node]);
            }
            Fault::Unreached { node, time } => {
                let running = self.running(node);
                // One that is frozen finds out nothing.
                if let Some(process) = running.filter(|it| self.processes[*it].frozen_until <= now)
                {
                    over = now + time;
                    self.at(over, Happening::Occurs { process, what: Occurrence::Reached });
                    self.occur(process, Occurrence::Unreached);
                }
            }
        }
        self.calm_since = self.calm_since.max(over);
    }

    fn start(&mut self, node: usize, copy: bool) {
        let settings = OwnershipSettings {
            name: format!("node-{node}").into(),
            lease_time: Duration::from_micros(LEASE_TIME),
            receivers: receivers(copy),
        };
        self.processes.push(Process {
            node,
            ownership: Ownership::new(settings),
            killed: false,
            frozen_until: 0,
            began: self.now,
            speed: self.random.random_range(0.9995..1.0005),
            asked: None,
            wake: 0,
            delivers: BTreeMap::new(),
            ending: BTreeMap::new(),
        });
        self.occur(self.processes.len() - 1, Occurrence::Time);
    }

    fn occur(&mut self, number: usize, what: Occurrence) {
        let process = &mut self.processes[number];
        if process.killed {
            return;
        }
        let until = process.frozen_until;
        if until > self.now {
            return self.at(until, Happening::Occurs { process: number, what });
        }
        let now = process.clock(self.now);
        let orders = process.ownership.note(what, now);
        self.orders += orders.len();
        orders.into_iter().for_each(|order| self.obey(number, order));
        loop {
            let process = &mut self.processes[number];
            let statement = match process.ownership.next(now) {
                Next::Do(statement) => statement,
                Next::At(time) => {
                    process.wake += 1;
                    let (wake, at) = (process.wake, process.when(time));
                    let late = self.random.random_range(0..3 * MS);
                    return self.at(at + 1 + late, Happening::Wake { process: number, wake });
                }
                Next::Wait => return,
            };
            self.send(number, statement);
        }
    }

    fn obey(&mut self, number: usize, order: Order) {
        let process = &mut self.processes[number];
        match order {
            Order::Deliver { partition, lease, .. } => {
                assert!(!process.ending.contains_key(&partition));
                let before = process.delivers.insert(partition, self.happenings.len());
                assert_eq!(before, None, "it is told once");
                self.leases.push((number, partition, lease));
            }
            Order::End(partition) => {
                let lease = process.delivers.remove(&partition).expect("it is delivered");
                process.ending.insert(partition, lease);
                let quiet = Happening::Quiet { process: number, partition, lease };
                let attempt = self.random.random_range(0..200 * MS);
                self.at(self.now + attempt, quiet);
            }
            Order::Drop(partition) => {
                process.delivers.remove(&partition);
                process.ending.remove(&partition);
            }
        }
    }

    fn send(&mut self, process: usize, statement: Statement) {
        self.statements += 1;
        let number = self.statements;
        self.processes[process].asked = Some(number);
        let takes = self.travels();
        self.at(self.now + takes, Happening::Arrives { process, number, statement });
        let answer = Occurrence::Failed;
        self.at(self.now + PATIENCE, Happening::Answer { process, number, answer });
    }

    /// To the store, or back: some are late, whole, or come to nobody who waits for them.
    fn travels(&mut self) -> u64 {
        if !(self.rough && self.random.random_ratio(1, 30)) {
            return self.random.random_range(1..30) * MS;
        }
        let takes = self.random.random_range(100..2500) * MS;
        self.calm_since = self.calm_since.max(self.now + takes.max(PATIENCE));
        takes
    }

    fn arrive(&mut self, process: usize, number: u64, statement: Statement) {
        let takes = self.travels();
        let node = self.processes[process].node;
        let away = self.outage_until.max(self.cut_off_until[node]) > self.now;
        // The connection is refused, or nothing comes back, done or not.
        let done = !away || self.random.random_ratio(1, 20);
        let answer = done.then(|| {
            let tells = matches!(statement, Statement::Release { .. } | Statement::Leave { .. });
            let answer = self.store.run(statement);
            if tells {
                self.notify();
            }
            answer
        });
        match (answer, away) {
            (Some(answer), false) => {
                self.at(self.now + takes, Happening::Answer { process, number, answer });
            }
            (_, _) if self.random.random() => {
                let answer = Occurrence::Failed;
                self.at(self.now + takes, Happening::Answer { process, number, answer });
            }
            (_, _) => {}
        }
    }

    fn notify(&mut self) {
        for process in 0..self.processes.len() {
            if !self.rough || self.random.random_ratio(9, 10) {
                let at = self.now + self.random.random_range(1..30) * MS;
                self.at(at, Happening::Occurs { process, what: Occurrence::Notified });
            }
        }
    }

    /// Each partition has the owner that its node's name says, if any that runs may have it.
    fn check_balance(&self) {
        let running: Vec<_> = (0..NODES).filter_map(|node| self.running(node)).collect();
        let knows_copy: BTreeSet<_> =
            running.iter().copied().filter(|process| self.knows_copy(*process)).collect();
        for partition in Partition::all() {
            let needs_copy = partition.number() < WITH_COPY && !knows_copy.is_empty();
            let may = running.iter().filter(|process| !needs_copy || knows_copy.contains(process));
            let score =
                |process: &&usize| super::peers::scores(&self.name(**process))[partition.number()];
            let expected = may.max_by_key(score);
            let holding = self.leases.iter().find(|(_, of, _)| *of == partition);
            assert_eq!(holding.map(|(process, ..)| process), expected, "partition {partition}");
            let delivers =
                |process: &usize| self.processes[*process].delivers.contains_key(&partition);
            assert!(expected.is_none_or(delivers), "partition {partition}");
        }
    }

    fn name(&self, process: usize) -> String {
        format!("node-{}", self.processes[process].node)
    }

    /// By what it said of itself.
    fn knows_copy(&self, process: usize) -> bool {
        let name = self.name(process);
        let mut rows = self.store.nodes.values().rev();
        let row = rows.find(|row| *row.name == *name && !row.dead && row.beat > 0);
        row.is_some_and(|row| row.receivers.len() > 1)
    }

    /// Nothing happens to anybody any more.
    fn calm_down(&mut self) {
        self.rough = false;
        self.run_until(self.calm_since.max(self.now));
        self.run_until(self.calm_since.max(self.now));
    }
}

fn faults() -> impl Strategy<Value = Vec<(u64, Fault)>> {
    let time = || (1..8000_u64).prop_map(|ms| ms * MS);
    let node = || 0..NODES;
    let fault = prop_oneof![
        4 => (node(), prop::bool::weighted(0.3)).prop_map(|(node, copy)| Fault::Start { node, copy }),
        2 => node().prop_map(|node| Fault::Kill { node }),
        1 => node().prop_map(|node| Fault::Stop { node }),
        2 => (node(), time()).prop_map(|(node, time)| Fault::Freeze { node, time }),
        1 => time().prop_map(|time| Fault::Outage { time }),
        2 => (node(), time()).prop_map(|(node, time)| Fault::CutOff { node, time }),
        1 => (node(), time()).prop_map(|(node, time)| Fault::Unreached { node, time }),
    ];
    let gap = prop_oneof![2 => 0..100 * MS, 3 => 0..1000 * MS, 2 => 0..6000 * MS];
    prop::collection::vec((gap, fault), 1..25)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn no_partition_has_two_owners_and_each_has_its_own_soon_after_the_last_fault(
        faults in faults(),
        seed in any::<u64>(),
    ) {
        let mut world = World::new(seed);
        let begin = (0..2).map(|node| (0, Fault::Start { node, copy: false }));
        let mut at = 0;
        for (gap, fault) in begin.chain([(5000 * MS, Fault::Outage { time: 0 })]).chain(faults) {
            at += gap;
            world.at(at, Happening::Fault(fault));
        }
        world.run_until(at);
        world.calm_down();
        world.run_until(world.calm_since + TAKEOVER);
        world.check_balance();
        world.orders = 0;
        world.run_until(world.now + 10 * LEASE_TIME);
        prop_assert_eq!(world.orders, 0, "nothing moves without a cause");
    }
}
