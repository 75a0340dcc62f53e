//! Ownership: what a node does so that each partition has one owner, and soon.
//!
//! Owns the node's incarnation and its term, what each partition is to it, and what is asked of the store next. Leaves to
//! its user to ask the store and the queue. Sees no clock and no store: time is an argument, what happened comes in as an
//! [`Occurrence`], what is to be done comes out as an [`Order`], for the queue, or a [`Statement`].
//!
//! Invariants:
//! - A lease is given only for what a confirmed claim of this incarnation took. It is void before the partition is
//!   released, when its row names another owner, and when the term is over; and with that nobody else can own it while
//!   it holds (see [`crate::lease`]).
//! - One statement at a time is under way, so rows are never seen in another order than what was done to them. What
//!   came of a statement that failed is not guessed: the next beat reads it.
//! - An incarnation whose term is over, or whose row is gone or dead, does nothing any more. The next one buries it, so
//!   that what it owned is free at once.
//! - What is nobody's, or a dead node's, is claimed by the node that [`Peers::choice`] names, and by no other; what
//!   another should have is given up once its attempts have ended.
//!
//! How long it takes: a node that dies is buried `LEASE_TIME` after its last beat was seen, which is at most a quarter of
//! `LEASE_TIME` after it was done, and its partitions are claimed with the next statement.
//!
//! | life | ends with |
//! | --- | --- |
//! | outside | the row of a new incarnation |
//! | inside | the end of its term, or a stop |
//! | leaving | every partition given up, and its row gone |
//! | gone | |

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use super::cut::CutOff;
use super::holding::{Change, Holding, Sight, Sign, step};
use super::peers::Peers;
use super::statement::{Epoch, NodeId, PartitionRow, Statement, View};
use crate::event::partition::Partition;
use crate::lease::{BootTime, Lease, Term};
use crate::receiver::ReceiverName;

/// Beats in a `LEASE_TIME`, so that one may get lost, and another be late.
const BEATS: u32 = 4;

/// Between two attempts to come in, or to leave, while the store does not answer.
const TRY_AGAIN: Duration = Duration::from_secs(1);

#[derive(Clone, Debug)]
pub struct OwnershipSettings {
    /// `NODE_NAME`.
    pub name: Arc<str>,
    /// `LEASE_TIME`.
    pub lease_time: Duration,
    /// Those that this node can deliver to.
    pub receivers: BTreeSet<ReceiverName>,
}

/// What happened.
#[derive(Clone, Debug)]
pub enum Occurrence {
    /// Nothing but that time passed.
    Time,
    /// Another node said that owners have changed.
    Notified,
    /// [`Statement::Join`] was done, with this number.
    Joined(NodeId),
    /// [`Statement::Beat`] was done, and this is what it read.
    Beaten(Box<View>),
    /// [`Statement::Beat`] found this node dead, or no row of it.
    NotLiving,
    /// [`Statement::Bury`] was done, or found that the node has beaten, or is dead already.
    Buried(bool),
    /// [`Statement::Claim`] was done, of these, with their new epochs.
    Claimed(Vec<(Partition, Epoch)>),
    Released,
    Left,
    /// Whether the statement under way was done, or will be, is not known.
    Failed,
    /// The last attempt at the partition's events has ended after [`Order::End`], and is settled.
    Quiet(Partition),
    /// An attempt found the receiver `main` away, which counts as down.
    Unreached,
    /// The receiver `main` answered.
    Reached,
    /// The process stops.
    Stop,
}

/// What whoever delivers is to do.
#[derive(Clone, Debug)]
pub enum Order {
    /// Read the partition's events from their beginning, and deliver them for as long as the lease holds; settle them
    /// as this node.
    Deliver { partition: Partition, node: NodeId, lease: Lease },
    /// Begin no more attempts, forget what waits, and tell when the last one under way is settled
    /// ([`Occurrence::Quiet`]).
    End(Partition),
    /// Break off what is under way, and forget it and what waits, if anything. What it still brings is not settled.
    Drop(Partition),
}

/// What is to be done next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Next {
    /// To ask the store, within a second.
    Do(Statement),
    /// To wait until then ([`Occurrence::Time`]), or until something happens.
    At(BootTime),
    /// To wait until something happens.
    Wait,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Life {
    /// Without an incarnation; the one before is to be buried.
    Outside {
        former: Option<NodeId>,
    },
    Inside {
        me: NodeId,
    },
    Leaving {
        me: NodeId,
    },
    Gone,
}

/// A partition, as this node knows it.
#[derive(Debug)]
struct Part {
    holding: Holding,
    /// While it is held, or about to end.
    lease: Option<Lease>,
    row: PartitionRow,
    /// Its epoch was seen to shrink, so the store lost what was done last: others who own it by that have until then to
    /// learn of it.
    barred: Option<BootTime>,
}

#[derive(Debug)]
struct UnderWay {
    statement: Statement,
    sent: BootTime,
}

#[derive(Debug)]
pub struct Ownership {
    settings: OwnershipSettings,
    life: Life,
    /// Of this incarnation, until it is over.
    term: Option<Term>,
    peers: Peers,
    /// By number.
    parts: Vec<Part>,
    cut: CutOff,
    under_way: Option<UnderWay>,
    /// When the last beat, or attempt to come in or leave, was sent.
    tried: Option<BootTime>,
    /// The rows may have changed.
    stale: bool,
    /// The last statement failed, so nothing but a beat is worth a try.
    doubtful: bool,
}

impl Ownership {
    pub fn new(settings: OwnershipSettings) -> Self {
        let part = || Part {
            holding: Holding::Away,
            lease: None,
            row: PartitionRow::default(),
            barred: None,
        };
        Self {
            settings,
            life: Life::Outside { former: None },
            term: None,
            peers: Peers::default(),
            parts: Partition::all().map(|_| part()).collect(),
            cut: CutOff::default(),
            under_way: None,
            tried: None,
            stale: false,
            doubtful: false,
        }
    }

    /// Whether everything is given up after [`Occurrence::Stop`].
    pub fn is_gone(&self) -> bool {
        self.life == Life::Gone && self.under_way.is_none()
    }

    /// Takes note of what happened until now, and says what follows.
    pub fn note(&mut self, what: Occurrence, now: BootTime) -> Vec<Order> {
        let mut orders = Vec::new();
        if self.term.as_ref().is_some_and(|term| term.is_over(now)) {
            self.lapse(&mut orders);
        }
        let answered = what.is_answer().then(|| self.under_way.take()).flatten();
        if answered.is_some() {
            self.doubtful = matches!(what, Occurrence::Failed);
        }
        self.turn(what, answered, now, &mut orders);
        orders
    }

    fn turn(
        &mut self,
        what: Occurrence,
        answered: Option<UnderWay>,
        now: BootTime,
        orders: &mut Vec<Order>,
    ) {
        use Life::{Gone, Inside, Leaving, Outside};
        use Occurrence::{
            Beaten, Buried, Claimed, Failed, Joined, Left, NotLiving, Notified, Quiet, Reached,
            Released, Stop, Time, Unreached,
        };
        match (self.life, what) {
            (Outside { .. }, Joined(me)) => self.come_in(me, answered.as_ref()),
            // The stop came while the row was made, and that goes too.
            (Leaving { .. } | Gone, Joined(me)) => self.life = Leaving { me },
            (Inside { me } | Leaving { me }, Beaten(view)) => {
                self.look(me, *view, answered, now, orders);
            }
            (Inside { .. } | Leaving { .. }, NotLiving) => self.lapse(orders),
            (Inside { me } | Leaving { me }, Buried(done)) => {
                self.bury(me, done, answered, now, orders);
            }
            (Inside { me }, Claimed(taken)) => self.take(me, &taken, answered, orders),
            (Leaving { me }, Claimed(taken)) => {
                self.take(me, &taken, answered, orders);
                self.sign_all(Sign::Leaving, orders);
            }
            (Inside { .. } | Leaving { .. }, Released) => self.release(answered, orders),
            (Inside { .. } | Leaving { .. }, Failed) => self.fail(answered, orders),
            (Inside { .. } | Leaving { .. }, Quiet(partition)) => {
                self.sign(partition, Sign::Quiet, orders);
            }
            (Inside { .. } | Leaving { .. }, Notified) => self.stale = true,
            (Outside { .. } | Inside { .. } | Leaving { .. }, Unreached) => {
                self.cut.found_nobody(now);
            }
            (Outside { .. } | Inside { .. } | Leaving { .. }, Reached) => self.cut.found_somebody(),
            (Outside { former: Some(me) }, Stop) => self.life = Leaving { me },
            (Outside { former: None }, Stop) => self.life = Gone,
            (Inside { me }, Stop) => {
                self.life = Leaving { me };
                // The others hear of it with a beat.
                self.stale = true;
                self.sign_all(Sign::Leaving, orders);
            }
            (Leaving { .. }, Left) => {
                self.term = None;
                self.life = Gone;
            }
            // What an incarnation asked that is over since, or a word on what it held.
            (
                Outside { .. },
                Beaten(_) | NotLiving | Buried(_) | Claimed(_) | Released | Left | Failed
                | Quiet(_),
            )
            // All rows are read at first.
            | (Outside { .. }, Notified)
            // It asked for none of these.
            | (Inside { .. }, Joined(_) | Left)
            | (Leaving { .. }, Stop)
            // That a term is over is seen whatever happens.
            | (Outside { .. } | Inside { .. } | Leaving { .. }, Time)
            | (
                Gone,
                Time | Notified | Beaten(_) | NotLiving | Buried(_) | Claimed(_) | Released | Left
                | Failed | Quiet(_) | Unreached | Reached | Stop,
            ) => {}
        }
    }

    fn come_in(&mut self, me: NodeId, answered: Option<&UnderWay>) {
        let Some(&UnderWay { sent, .. }) = answered else { return };
        self.life = Life::Inside { me };
        self.term = Some(Term::begin(sent, self.settings.lease_time));
        self.stale = true;
    }

    /// The incarnation is over.
    fn lapse(&mut self, orders: &mut Vec<Order>) {
        self.term = None;
        self.peers = Peers::default();
        if let Life::Inside { me } = self.life {
            self.life = Life::Outside { former: Some(me) };
        }
        self.sign_all(Sign::Over, orders);
    }

    fn look(
        &mut self,
        me: NodeId,
        view: View,
        answered: Option<UnderWay>,
        now: BootTime,
        orders: &mut Vec<Order>,
    ) {
        let Some((UnderWay { sent, .. }, term)) = answered.zip(self.term.as_ref()) else { return };
        if !term.renew(sent, now) {
            return self.lapse(orders);
        }
        self.peers.look(view.nodes, self.beat_time(), now);
        let known_by_all = now + self.settings.lease_time;
        for (partition, row) in Partition::all().zip(view.partitions) {
            let part = self.part(partition);
            if row.epoch < part.row.epoch {
                part.barred = Some(known_by_all);
            }
            part.row = row;
            self.see(me, partition, now, orders);
        }
    }

    fn bury(
        &mut self,
        me: NodeId,
        done: bool,
        answered: Option<UnderWay>,
        now: BootTime,
        orders: &mut Vec<Order>,
    ) {
        let Some(Statement::Bury { node, .. }) = answered.map(|way| way.statement) else { return };
        if self.term.is_none() {
            return;
        }
        if !done {
            self.stale = true;
            return self.peers.spare(node);
        }
        self.peers.bury(node);
        // What it owned is free, and what is free may be this node's now.
        Partition::all().for_each(|partition| self.see(me, partition, now, orders));
    }

    fn take(
        &mut self,
        me: NodeId,
        taken: &[(Partition, Epoch)],
        answered: Option<UnderWay>,
        orders: &mut Vec<Order>,
    ) {
        for (partition, _) in answered.map(UnderWay::partitions).unwrap_or_default() {
            let claimed = taken.iter().find(|(claimed, _)| *claimed == partition);
            match claimed {
                Some(&(_, epoch)) => {
                    let row = &mut self.part(partition).row;
                    (row.owner, row.epoch) = (Some(me), epoch);
                    self.sign(partition, Sign::Claimed { epoch }, orders);
                }
                None => {
                    self.stale = true;
                    self.sign(partition, Sign::NotClaimed, orders);
                }
            }
        }
    }

    fn release(&mut self, answered: Option<UnderWay>, orders: &mut Vec<Order>) {
        for (partition, Epoch(epoch)) in answered.map(UnderWay::partitions).unwrap_or_default() {
            let row = &mut self.part(partition).row;
            (row.owner, row.epoch) = (None, Epoch(epoch + 1));
            self.sign(partition, Sign::Released, orders);
        }
    }

    /// What the partition's row says now.
    fn see(&mut self, me: NodeId, partition: Partition, now: BootTime, orders: &mut Vec<Order>) {
        let part = &self.parts[partition.number()];
        let PartitionRow { owner, epoch, .. } = part.row;
        let barred = part.barred.is_some_and(|until| now < until);
        let wanted = self.life == (Life::Inside { me })
            && !barred
            && self.peers.choice(partition, &part.row) == Some(me);
        let sight = match owner {
            Some(owner) if owner == me => Sight::Ours { epoch, wanted },
            Some(owner) if self.peers.may_deliver(owner) => Sight::Taken,
            Some(_) | None => Sight::Free { epoch, wanted },
        };
        self.sign(partition, Sign::Seen(sight), orders);
    }

    fn sign_all(&mut self, sign: Sign, orders: &mut Vec<Order>) {
        Partition::all().for_each(|partition| self.sign(partition, sign, orders));
    }

    fn fail(&mut self, answered: Option<UnderWay>, orders: &mut Vec<Order>) {
        for (partition, _) in answered.map(UnderWay::partitions).unwrap_or_default() {
            self.sign(partition, Sign::Failed, orders);
        }
    }

    fn sign(&mut self, partition: Partition, sign: Sign, orders: &mut Vec<Order>) {
        let (life, term) = (self.life, self.term.as_ref());
        let part = &mut self.parts[partition.number()];
        let (holding, change) = step(part.holding, sign);
        part.holding = holding;
        match (change, life) {
            (Some(Change::Taken), Life::Inside { me } | Life::Leaving { me }) => {
                let lease = term.expect("whoever claims has a term").lease();
                part.lease = Some(lease.clone());
                orders.push(Order::Deliver { partition, node: me, lease });
            }
            (Some(Change::Taken), Life::Outside { .. } | Life::Gone) => {
                unreachable!("nothing is claimed without an incarnation")
            }
            (Some(Change::Ending), _) => orders.push(Order::End(partition)),
            (Some(Change::Ended), _) => withdraw(term, part),
            (Some(Change::Lost), _) => {
                withdraw(term, part);
                orders.push(Order::Drop(partition));
            }
            (None, _) => {}
        }
    }

    /// What is to be done now; a statement counts as sent with this.
    pub fn next(&mut self, now: BootTime) -> Next {
        let end = self.term.as_ref().map(Term::end);
        if self.under_way.is_some() || end.is_some_and(|end| end <= now) {
            return end.map_or(Next::Wait, Next::At);
        }
        let statement = match self.life {
            Life::Outside { former } => self.at_times(now).map(|()| self.join(former)),
            Life::Leaving { me } if end.is_none() => {
                self.at_times(now).map(|()| Statement::Leave { me })
            }
            Life::Inside { me } | Life::Leaving { me } => self.due(me, now),
            Life::Gone => return Next::Wait,
        };
        match statement {
            Ok(statement) => {
                self.under_way = Some(UnderWay { statement: statement.clone(), sent: now });
                Next::Do(statement)
            }
            Err(later) => Next::At(end.map_or(later, |end| end.min(later))),
        }
    }

    /// Else, when to try again.
    fn at_times(&mut self, now: BootTime) -> Result<(), BootTime> {
        match self.tried.map(|tried| tried + TRY_AGAIN).filter(|at| *at > now) {
            Some(later) => Err(later),
            None => {
                self.tried = Some(now);
                Ok(())
            }
        }
    }

    fn join(&self, former: Option<NodeId>) -> Statement {
        let OwnershipSettings { name, receivers, .. } = &self.settings;
        Statement::Join { name: Arc::clone(name), receivers: receivers.clone(), former }
    }

    /// First what keeps the lease, then what others wait for; else, when there will be something.
    fn due(&mut self, me: NodeId, now: BootTime) -> Result<Statement, BootTime> {
        let lease_time = self.settings.lease_time;
        let beat_at = self.tried.map_or(now, |tried| tried + self.beat_time());
        if beat_at <= now {
            return Ok(self.beat(me, now));
        }
        if self.doubtful {
            return Err(beat_at);
        }
        let idle = self.send(|holding| match holding {
            Holding::Idle { epoch } => Some(*epoch),
            _ => None,
        });
        if !idle.is_empty() {
            return Ok(Statement::Release { me, partitions: idle });
        }
        let holds_nothing = self.parts.iter().all(|part| part.holding == Holding::Away);
        if self.life == (Life::Leaving { me }) && holds_nothing {
            return Ok(Statement::Leave { me });
        }
        if let Some((node, beat)) = self.peers.silent_for(me, lease_time) {
            return Ok(Statement::Bury { node, beat });
        }
        let wanted = self.send(|holding| match holding {
            Holding::Wanted { seen } => Some(*seen),
            _ => None,
        });
        if !wanted.is_empty() {
            return Ok(Statement::Claim { me, partitions: wanted });
        }
        // Whether a node is silent until then is seen with a beat alone.
        let silent_at = self.peers.next_silent(me, lease_time).unwrap_or(beat_at);
        match self.stale || silent_at <= now {
            true => Ok(self.beat(me, now)),
            false => Err(beat_at.min(silent_at)),
        }
    }

    fn beat(&mut self, me: NodeId, now: BootTime) -> Statement {
        (self.tried, self.stale) = (Some(now), false);
        let delivers = self.parts.iter().any(|part| part.lease.is_some());
        let cut = self.cut.look(delivers, now);
        Statement::Beat { me, leaving: self.life == (Life::Leaving { me }), cut }
    }

    /// Those that `ask` for a statement, which is on its way now.
    fn send(&mut self, ask: impl Fn(&Holding) -> Option<Epoch>) -> Vec<(Partition, Epoch)> {
        let mut asking = Vec::new();
        for (partition, part) in Partition::all().zip(&mut self.parts) {
            if let Some(epoch) = ask(&part.holding) {
                asking.push((partition, epoch));
                (part.holding, _) = step(part.holding, Sign::Sent);
            }
        }
        asking
    }

    fn part(&mut self, partition: Partition) -> &mut Part {
        &mut self.parts[partition.number()]
    }

    fn beat_time(&self) -> Duration {
        self.settings.lease_time / BEATS
    }
}

/// Nothing of it may be sent any more.
fn withdraw(term: Option<&Term>, part: &mut Part) {
    // Without a term its leases are void.
    if let Some((term, lease)) = term.zip(part.lease.take()) {
        term.withdraw(&lease);
    }
}

impl Occurrence {
    /// Whether it is what came of the statement under way.
    fn is_answer(&self) -> bool {
        match self {
            Self::Joined(_)
            | Self::Beaten(_)
            | Self::NotLiving
            | Self::Buried(_)
            | Self::Claimed(_)
            | Self::Released
            | Self::Left
            | Self::Failed => true,
            Self::Time
            | Self::Notified
            | Self::Quiet(_)
            | Self::Unreached
            | Self::Reached
            | Self::Stop => false,
        }
    }
}

impl UnderWay {
    /// Those that the statement is about.
    fn partitions(self) -> Vec<(Partition, Epoch)> {
        match self.statement {
            Statement::Claim { partitions, .. } | Statement::Release { partitions, .. } => {
                partitions
            }
            Statement::Join { .. }
            | Statement::Beat { .. }
            | Statement::Bury { .. }
            | Statement::Leave { .. } => Vec::new(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::statement::NodeRow;

    const LEASE_TIME: Duration = Duration::from_millis(3000);
    const ME: NodeId = NodeId(5);
    const OTHER: NodeId = NodeId(3);

    fn at(ms: u64) -> BootTime {
        BootTime::after(Duration::from_millis(ms))
    }

    fn outside() -> Ownership {
        let (name, receivers) = ("a".into(), [ReceiverName::main()].into());
        Ownership::new(OwnershipSettings { name, lease_time: LEASE_TIME, receivers })
    }

    fn node(id: NodeId, name: &str) -> NodeRow {
        let (name, receivers) = (name.into(), [ReceiverName::main()].into());
        NodeRow { id, name, beat: 1, dead: false, leaving: false, cut: false, receivers }
    }

    /// All partitions belong to one, or to nobody.
    fn view(nodes: Vec<NodeRow>, owner: Option<NodeId>, epoch: u64) -> Occurrence {
        let row = PartitionRow { owner, epoch: Epoch(epoch), ..PartitionRow::default() };
        let partitions = std::array::from_fn(|_| row.clone());
        Occurrence::Beaten(Box::new(View { nodes, partitions }))
    }

    fn alone(owner: Option<NodeId>, epoch: u64) -> Occurrence {
        view(vec![node(ME, "a")], owner, epoch)
    }

    /// Does what the store would, in no time.
    fn statement(ownership: &mut Ownership, now: BootTime) -> Statement {
        match ownership.next(now) {
            Next::Do(statement) => statement,
            other => panic!("nothing is to be done: {other:?}"),
        }
    }

    fn all(epoch: u64) -> Vec<(Partition, Epoch)> {
        Partition::all().map(|partition| (partition, Epoch(epoch))).collect()
    }

    /// With its first beat on the way, at 0 ms.
    fn inside() -> Ownership {
        let mut ownership = outside();
        let join = statement(&mut ownership, at(0));
        assert!(matches!(join, Statement::Join { former: None, .. }));
        ownership.note(Occurrence::Joined(ME), at(0));
        let beat = statement(&mut ownership, at(0));
        assert_eq!(beat, Statement::Beat { me: ME, leaving: false, cut: false });
        ownership
    }

    /// With all partitions, since 10 ms; and their leases.
    fn owner() -> (Ownership, Vec<Lease>) {
        let mut ownership = inside();
        ownership.note(alone(None, 6), at(5));
        let claim = statement(&mut ownership, at(5));
        assert_eq!(claim, Statement::Claim { me: ME, partitions: all(6) });
        let orders = ownership.note(Occurrence::Claimed(all(7)), at(10));
        let leases = orders.into_iter().map(|order| match order {
            Order::Deliver { lease, node, .. } => {
                assert_eq!(node, ME);
                lease
            }
            other => panic!("{other:?}"),
        });
        let leases: Vec<_> = leases.collect();
        assert_eq!(leases.len(), Partition::COUNT);
        (ownership, leases)
    }

    fn kinds(orders: &[Order]) -> String {
        let kind = |order: &Order| match order {
            Order::Deliver { .. } => 'd',
            Order::End(_) => 'e',
            Order::Drop(_) => 'x',
        };
        let mut kinds: Vec<char> = orders.iter().map(kind).collect();
        kinds.dedup();
        kinds.into_iter().collect()
    }

    #[test]
    fn every_occurrence_in_every_life_leads_where_the_table_says() {
        use Life::{Gone, Inside, Leaving, Outside};
        let partition = Partition::numbered(0).unwrap();
        let (former, new) = (Some(ME), NodeId(9));
        let (fresh, lapsed, inside) =
            (Outside { former: None }, Outside { former }, Inside { me: ME });
        let (leaving, again) = (Leaving { me: ME }, Leaving { me: new });
        let came = Inside { me: new };
        let lives = [fresh, lapsed, inside, leaving, Gone];
        let same = lives;
        let table = [
            (Occurrence::Time, same),
            (Occurrence::Notified, same),
            (Occurrence::Joined(new), [came, came, inside, again, again]),
            (alone(Some(ME), 7), same),
            (Occurrence::NotLiving, [fresh, lapsed, lapsed, leaving, Gone]),
            (Occurrence::Buried(true), same),
            (Occurrence::Buried(false), same),
            (Occurrence::Claimed(all(8)), same),
            (Occurrence::Released, same),
            (Occurrence::Left, [fresh, lapsed, inside, Gone, Gone]),
            (Occurrence::Failed, same),
            (Occurrence::Quiet(partition), same),
            (Occurrence::Unreached, same),
            (Occurrence::Reached, same),
            (Occurrence::Stop, [Gone, leaving, leaving, leaving, Gone]),
        ];
        for (what, row) in table {
            for (life, expected) in lives.into_iter().zip(row) {
                let (mut ownership, _) = owner();
                let has_term = matches!(life, Inside { .. } | Leaving { .. });
                ownership.term = ownership.term.filter(|_| has_term);
                ownership.life = life;
                let statement = Statement::Beat { me: ME, leaving: false, cut: false };
                ownership.under_way = Some(UnderWay { statement, sent: at(20) });
                ownership.note(what.clone(), at(30));
                assert_eq!(ownership.life, expected, "{life:?} {what:?}");
                assert_eq!(ownership.under_way.is_some(), !what.is_answer(), "{life:?} {what:?}");
            }
        }
    }

    #[test]
    fn the_end_of_the_term_takes_everything_at_once_and_the_next_incarnation_buries_this_one() {
        let (mut ownership, leases) = owner();
        assert!(ownership.note(Occurrence::Time, at(2969)).is_empty());
        assert!(leases.iter().all(|lease| lease.holds_at(at(2969))));
        let orders = ownership.note(Occurrence::Time, at(2970));
        assert_eq!((kinds(&orders).as_str(), orders.len()), ("x", Partition::COUNT));
        assert!(leases.iter().all(|lease| !lease.holds_at(at(0))));
        let join = statement(&mut ownership, at(2970));
        assert!(matches!(join, Statement::Join { former: Some(ME), .. }), "{join:?}");
    }

    #[test]
    fn a_beat_confirmed_after_the_end_keeps_nothing() {
        let (mut ownership, leases) = owner();
        assert!(matches!(statement(&mut ownership, at(2900)), Statement::Beat { .. }));
        assert_eq!(ownership.next(at(2901)), Next::At(at(2970)), "it wakes to see the end");
        assert_eq!(kinds(&ownership.note(alone(Some(ME), 7), at(2971))), "x");
        assert!(!leases[0].holds_at(at(2901)));
    }

    #[test]
    fn a_beat_renews_from_when_it_was_sent_and_comes_four_times_in_a_lease() {
        let (mut ownership, leases) = owner();
        assert_eq!(ownership.next(at(20)), Next::At(at(750)));
        assert!(matches!(statement(&mut ownership, at(750)), Statement::Beat { .. }));
        assert!(ownership.note(alone(Some(ME), 7), at(1600)).is_empty());
        assert!(leases[0].holds_at(at(750 + 2969)));
        assert!(!leases[0].holds_at(at(750 + 2970)));
    }

    #[test]
    fn what_the_rows_give_to_somebody_else_is_dropped_and_the_rest_goes_on() {
        let (mut ownership, leases) = owner();
        let Occurrence::Beaten(mut read) = alone(Some(ME), 7) else { unreachable!() };
        read.partitions[4].owner = Some(OTHER);
        read.nodes.push(node(OTHER, "b"));
        for (number, row) in read.partitions.iter_mut().enumerate() {
            row.receivers = if number == 9 { ["crm".parse().unwrap()].into() } else { [].into() };
        }
        read.nodes.iter_mut().for_each(|row| row.leaving = row.id == OTHER);
        statement(&mut ownership, at(750));
        let orders = ownership.note(Occurrence::Beaten(read), at(760));
        assert!(matches!(&orders[..], [Order::Drop(partition)] if partition.number() == 4));
        let held = leases.iter().filter(|lease| lease.holds_at(at(761))).count();
        assert_eq!(held, Partition::COUNT - 1);
    }

    #[test]
    fn a_store_that_lost_its_last_commits_gives_a_partition_to_nobody_for_a_lease() {
        let (mut ownership, leases) = owner();
        statement(&mut ownership, at(750));
        assert_eq!(kinds(&ownership.note(alone(None, 5), at(760))), "x");
        assert!(leases.iter().all(|lease| !lease.holds_at(at(760))));
        let mut now = at(760);
        while now < at(3760) {
            assert!(!matches!(ownership.next(now), Next::Do(Statement::Claim { .. })));
            ownership.note(alone(None, 5), now);
            now = now + Duration::from_millis(100);
        }
        while !matches!(ownership.next(now), Next::Do(Statement::Claim { .. })) {
            ownership.note(alone(None, 5), now);
            now = now + Duration::from_millis(100);
        }
        assert!(now <= at(3760) + LEASE_TIME / 4 + Duration::from_millis(200));
    }

    #[test]
    fn what_is_its_own_without_its_knowledge_is_released() {
        let mut ownership = inside();
        assert!(ownership.note(alone(Some(ME), 6), at(5)).is_empty());
        let release = Statement::Release { me: ME, partitions: all(6) };
        assert_eq!(statement(&mut ownership, at(5)), release);
    }

    #[test]
    fn after_a_statement_that_failed_only_a_beat_is_tried() {
        let mut ownership = inside();
        ownership.note(alone(None, 6), at(5));
        assert!(matches!(statement(&mut ownership, at(5)), Statement::Claim { .. }));
        ownership.note(Occurrence::Failed, at(6));
        assert_eq!(ownership.next(at(6)), Next::At(at(750)));
        assert!(matches!(statement(&mut ownership, at(750)), Statement::Beat { .. }));
        ownership.note(alone(None, 6), at(755));
        assert!(matches!(statement(&mut ownership, at(755)), Statement::Claim { .. }));
    }

    #[test]
    fn one_that_is_silent_for_a_lease_is_buried_and_what_it_had_is_claimed_next() {
        let mut ownership = inside();
        let nodes = || vec![node(ME, "a"), node(OTHER, "b")];
        let (mut now, mut beats) = (at(5), 0);
        ownership.note(view(nodes(), Some(OTHER), 6), now);
        let bury = loop {
            match ownership.next(now) {
                Next::At(later) => now = later,
                Next::Do(Statement::Beat { .. }) => {
                    beats += 1;
                    ownership.note(view(nodes(), Some(OTHER), 6), now);
                }
                Next::Do(other) => break other,
                Next::Wait => panic!("it waits for ever"),
            }
        };
        assert_eq!(bury, Statement::Bury { node: OTHER, beat: 1 });
        assert_eq!((now, beats), (at(5) + LEASE_TIME, 5), "the last beat comes when it is due");
        ownership.note(Occurrence::Buried(true), now);
        let claim = Statement::Claim { me: ME, partitions: all(6) };
        assert_eq!(statement(&mut ownership, now), claim);
    }

    #[test]
    fn one_that_is_not_to_be_buried_after_all_is_looked_at_and_not_buried_again_at_once() {
        let mut ownership = inside();
        let nodes = || vec![node(ME, "a"), node(OTHER, "b")];
        let mut now = at(5);
        ownership.note(view(nodes(), Some(OTHER), 6), now);
        loop {
            match ownership.next(now) {
                Next::At(later) => now = later,
                Next::Do(Statement::Bury { .. }) => break,
                Next::Do(_) => drop(ownership.note(view(nodes(), Some(OTHER), 6), now)),
                Next::Wait => panic!("it waits for ever"),
            }
        }
        ownership.note(Occurrence::Buried(false), now);
        assert!(matches!(statement(&mut ownership, now), Statement::Beat { .. }));
    }

    #[test]
    fn what_another_should_have_is_released_once_its_attempts_have_ended() {
        let (mut ownership, leases) = owner();
        statement(&mut ownership, at(750));
        let nodes = vec![node(ME, "a"), node(OTHER, "b")];
        let orders = ownership.note(view(nodes, Some(ME), 7), at(760));
        assert_eq!(kinds(&orders), "e");
        assert!((16..48).contains(&orders.len()), "{}", orders.len());
        assert!(matches!(ownership.next(at(760)), Next::At(_)), "attempts are under way");
        let Order::End(first) = orders[0] else { panic!("{orders:?}") };
        assert!(leases[first.number()].holds_at(at(770)), "they may still be sent");
        assert!(ownership.note(Occurrence::Quiet(first), at(780)).is_empty());
        assert!(!leases[first.number()].holds_at(at(780)));
        let release = Statement::Release { me: ME, partitions: vec![(first, Epoch(7))] };
        assert_eq!(statement(&mut ownership, at(780)), release);
    }

    #[test]
    fn a_stop_gives_everything_up_and_takes_the_row_away() {
        let (mut ownership, leases) = owner();
        assert_eq!(kinds(&ownership.note(Occurrence::Stop, at(20))), "e");
        let beat = Statement::Beat { me: ME, leaving: true, cut: false };
        assert_eq!(statement(&mut ownership, at(20)), beat, "the others hear of it");
        let leaving = NodeRow { leaving: true, ..node(ME, "a") };
        ownership.note(view(vec![leaving], Some(ME), 7), at(30));
        for partition in Partition::all() {
            ownership.note(Occurrence::Quiet(partition), at(40));
        }
        assert!(leases.iter().all(|lease| !lease.holds_at(at(40))));
        let release = Statement::Release { me: ME, partitions: all(7) };
        assert_eq!(statement(&mut ownership, at(40)), release);
        ownership.note(Occurrence::Released, at(50));
        assert_eq!(statement(&mut ownership, at(50)), Statement::Leave { me: ME });
        assert!(!ownership.is_gone());
        ownership.note(Occurrence::Left, at(60));
        assert!(ownership.is_gone());
        assert_eq!(ownership.next(at(60)), Next::Wait);
    }

    #[test]
    fn a_stop_while_the_store_is_away_tries_to_leave_once_a_second() {
        let (mut ownership, _) = owner();
        ownership.note(Occurrence::Time, at(2970));
        ownership.note(Occurrence::Stop, at(2980));
        for now in [at(2980), at(3980), at(4980)] {
            assert_eq!(statement(&mut ownership, now), Statement::Leave { me: ME });
            ownership.note(Occurrence::Failed, now);
            assert_eq!(ownership.next(now), Next::At(now + TRY_AGAIN));
        }
    }

    #[test]
    fn a_row_that_was_made_as_the_stop_came_is_taken_away() {
        let mut ownership = outside();
        statement(&mut ownership, at(0));
        ownership.note(Occurrence::Stop, at(1));
        assert!(!ownership.is_gone(), "the row may be there");
        ownership.note(Occurrence::Joined(ME), at(2));
        let leave = statement(&mut ownership, at(1000));
        assert_eq!(leave, Statement::Leave { me: ME });
    }

    #[test]
    fn one_that_does_not_reach_the_receiver_says_so() {
        let (mut ownership, _) = owner();
        ownership.note(Occurrence::Unreached, at(20));
        let beat = Statement::Beat { me: ME, leaving: false, cut: true };
        assert_eq!(statement(&mut ownership, at(750)), beat);
        ownership.note(alone(Some(ME), 7), at(755));
        ownership.note(Occurrence::Reached, at(760));
        let beat = Statement::Beat { me: ME, leaving: false, cut: false };
        assert_eq!(statement(&mut ownership, at(1500)), beat);
    }
}
