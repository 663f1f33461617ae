//! Each cycle is an anomaly; its edges say which.
//!
//! ```text
//!  looked for as        begins with   goes on with         named
//!  G0                   ww            ww                   dirty write
//!  G1c                  wr            ww wr                circular flow
//!  G-single             rw            ww wr                lost update, non-repeatable read, read skew
//!  G2-item              rw            ww wr rw             write skew
//!  G2                   predicate     ww wr rw predicate   phantom
//!  real time            time          everything           against real time
//! ```
//!
//! For each row: the knots of its edges (no knot, no anomaly: exact), then for each edge of the first kind
//! within a knot the shortest way back. That is a shortest cycle through this edge, and what people
//! get to see. In a large knot, as read committed makes them, most edges close a cycle; then only
//! so many are tried. For G-single the way back is acyclic where G1c is absent, so looking only at nodes that
//! stand between the two ends in its order makes the search cheap, and all edges are tried.

use std::collections::{HashMap, VecDeque};

use argali::Isolation;

use super::super::model::History;
use super::graph::{Edge, Graph, Kinds, Node, explain};
use super::knots::{Knots, order};
use super::{Anomaly, Verdict};

/// Most edges tried in one row of the table.
const TRIES_MAX: usize = 2000;

/// A row of the table.
struct Class {
    first: Kinds,
    rest: Kinds,
    name: fn(&[(Node, Edge)]) -> Option<Anomaly>,
}

const WRITES: Kinds = Kinds::WW;
const FLOW: Kinds = Kinds::WW.or(Kinds::WR);
const ITEMS: Kinds = FLOW.or(Kinds::RW);
const DEPENDENCIES: Kinds = ITEMS.or(Kinds::PREDICATE);
const ALL: Kinds = DEPENDENCIES.or(Kinds::TIME);

const CLASSES: [Class; 6] = [
    Class { first: Kinds::WW, rest: WRITES, name: |_| Some(Anomaly::DirtyWrite) },
    Class { first: Kinds::WR, rest: FLOW, name: |_| Some(Anomaly::CircularFlow) },
    Class { first: Kinds::RW, rest: FLOW, name: |cycle| Some(single(cycle)) },
    Class { first: Kinds::RW, rest: ITEMS, name: skew },
    Class { first: Kinds::PREDICATE, rest: DEPENDENCIES, name: |_| Some(Anomaly::Phantom) },
    Class { first: Kinds::TIME, rest: ALL, name: |_| Some(Anomaly::AgainstRealTime) },
];

/// Notes the cycles in `graph`. Time counts only at levels that promise it.
pub(super) fn find(history: &History, graph: &Graph, level: Isolation, verdict: &mut Verdict) {
    let timely = Anomaly::AgainstRealTime.is_forbidden(level);
    if Knots::of(graph, if timely { ALL } else { DEPENDENCIES }).is_empty() {
        return;
    }
    for class in CLASSES.iter().filter(|class| timely || class.first != Kinds::TIME) {
        let search = Search::new(graph, class);
        search.run(|cycle| {
            if let Some(anomaly) = (class.name)(cycle) {
                verdict.note(anomaly, explain(history, graph, cycle));
            }
        });
    }
}

/// Names a cycle with one rw edge, its first.
fn single(cycle: &[(Node, Edge)]) -> Anomaly {
    let key = cycle[0].1.key();
    let last = cycle[cycle.len() - 1].1.kind();
    match cycle.iter().all(|(_, edge)| edge.key() == key) {
        true if last == Kinds::WW => Anomaly::LostUpdate,
        true => Anomaly::NonRepeatableRead,
        false => Anomaly::ReadSkew,
    }
}

/// Names a cycle that begins with an rw edge; with no other one it was met as G-single.
fn skew(cycle: &[(Node, Edge)]) -> Option<Anomaly> {
    let others = cycle[1..].iter().any(|(_, edge)| edge.kind() == Kinds::RW);
    others.then_some(Anomaly::WriteSkew)
}

/// The search for one row of the table.
struct Search<'g> {
    graph: &'g Graph,
    class: &'g Class,
    knots: Knots,
    /// Places in an order of the edges that lead back, where there is one.
    places: Option<Vec<u32>>,
}

impl<'g> Search<'g> {
    fn new(graph: &'g Graph, class: &'g Class) -> Self {
        let knots = Knots::of(graph, class.first.or(class.rest));
        let ordered = !class.rest.contains(class.first) && !knots.is_empty();
        let places = if ordered { order(graph, class.rest) } else { None };
        Self { graph, class, knots, places }
    }

    /// Calls `found` with a shortest cycle through each edge tried, each cycle once.
    fn run(&self, mut found: impl FnMut(&[(Node, Edge)])) {
        if self.knots.is_empty() {
            return;
        }
        let mut tries = 0;
        for from in 0..self.graph.len() as Node {
            for edge in self.graph.edges(from).iter().filter(|edge| self.may_close(from, edge)) {
                tries += 1;
                if tries > TRIES_MAX && self.places.is_none() {
                    return;
                }
                if let Some(cycle) = self.cycle(from, *edge)
                    && self.begins_here(&cycle)
                {
                    found(&cycle);
                }
            }
        }
    }

    fn may_close(&self, from: Node, edge: &Edge) -> bool {
        edge.kind() == self.class.first
            && self.graph.is_txn(from)
            && self.knots.same(from, edge.to)
            && self.lies_before(edge.to, from)
    }

    fn lies_before(&self, node: Node, end: Node) -> bool {
        self.places.as_ref().is_none_or(|at| at[node as usize] <= at[end as usize])
    }

    /// A cycle is met once for each of its edges of the first kind; the one from the least node counts.
    fn begins_here(&self, cycle: &[(Node, Edge)]) -> bool {
        let first = |(from, edge): &(Node, Edge)| {
            (edge.kind() == self.class.first && self.graph.is_txn(*from)).then_some(*from)
        };
        cycle.iter().filter_map(first).min() == Some(cycle[0].0)
    }

    /// The shortest cycle that begins with `edge`: breadth first from its end back to `from`.
    fn cycle(&self, from: Node, edge: Edge) -> Option<Vec<(Node, Edge)>> {
        let mut came_by: HashMap<Node, (Node, Edge)> = HashMap::from([(edge.to, (from, edge))]);
        let mut queue = VecDeque::from([edge.to]);
        while let Some(node) = queue.pop_front() {
            for next in self.graph.edges(node) {
                let useful = self.class.rest.contains(next.kind())
                    && self.knots.same(next.to, from)
                    && self.lies_before(next.to, from);
                if !useful || came_by.contains_key(&next.to) {
                    continue;
                }
                came_by.insert(next.to, (node, *next));
                if next.to == from {
                    return Some(trace(from, &came_by));
                }
                queue.push_back(next.to);
            }
        }
        None
    }
}

/// Follows the way back from `end` to itself, then turns it round.
fn trace(end: Node, came_by: &HashMap<Node, (Node, Edge)>) -> Vec<(Node, Edge)> {
    let mut cycle = vec![came_by[&end]];
    while cycle[cycle.len() - 1].0 != end {
        cycle.push(came_by[&cycle[cycle.len() - 1].0]);
    }
    cycle.reverse();
    cycle
}
