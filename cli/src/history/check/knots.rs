//! Where cycles are: strongly connected components, and an order where there are none.
//!
//! ```text
//!  1 ─► 2 ─► 3 ─► 4 ─► 6          knot {2, 3, 4}: each of them reaches each other
//!       ▲         │
//!       └─────────┘               without 4 ─► 2 the order is 1, 2, 3, 4, 6
//! ```
//!
//! Tarjan's algorithm (1972), with its stack on the heap: a history of a hundred thousand transactions
//! is a path of that length. Linear in nodes and edges, so a clean history costs little.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use super::graph::{Graph, Kinds, Node};

/// No component yet.
const NONE: u32 = u32::MAX;

/// The strongly connected components of a part of a graph.
pub(super) struct Knots {
    component: Vec<u32>,
    size: Vec<u32>,
}

impl Knots {
    /// The components under edges of `kinds`.
    pub(super) fn of(graph: &Graph, kinds: Kinds) -> Self {
        let mut search = Search::new(graph, kinds);
        for root in 0..graph.len() as Node {
            if search.index[root as usize] == NONE {
                search.run(root);
            }
        }
        Self { component: search.component, size: search.size }
    }

    /// Whether there is no cycle at all.
    pub(super) fn is_empty(&self) -> bool {
        self.size.iter().all(|size| *size == 1)
    }

    /// Whether a cycle leads through both; graphs here have no loops of one node.
    pub(super) fn same(&self, a: Node, b: Node) -> bool {
        self.component[a as usize] == self.component[b as usize]
    }
}

struct Search<'g> {
    graph: &'g Graph,
    kinds: Kinds,
    /// When each node was met.
    index: Vec<u32>,
    /// The earliest node on the stack that it is known to reach.
    low: Vec<u32>,
    component: Vec<u32>,
    size: Vec<u32>,
    /// Nodes met whose component is still open.
    open: Vec<Node>,
    met: u32,
}

impl<'g> Search<'g> {
    fn new(graph: &'g Graph, kinds: Kinds) -> Self {
        let none = vec![NONE; graph.len()];
        let (index, low, component) = (none.clone(), none.clone(), none);
        let (size, open) = (Vec::new(), Vec::new());
        Self { graph, kinds, index, low, component, size, open, met: 0 }
    }

    /// Everything that can be reached from `root`; `path` holds each node with its next edge.
    fn run(&mut self, root: Node) {
        let mut path = vec![(root, 0)];
        self.meet(root);
        while let Some((node, next)) = path.last_mut() {
            let (graph, from) = (self.graph, *node);
            let Some(edge) = graph.edges(from).get(*next) else {
                path.pop();
                self.leave(from);
                if let Some((parent, _)) = path.last() {
                    self.lower(*parent, self.low[from as usize]);
                }
                continue;
            };
            *next += 1;
            if !self.kinds.contains(edge.kind()) {
                continue;
            }
            if self.index[edge.to as usize] == NONE {
                self.meet(edge.to);
                path.push((edge.to, 0));
            } else if self.component[edge.to as usize] == NONE {
                self.lower(from, self.index[edge.to as usize]);
            }
        }
    }

    fn meet(&mut self, node: Node) {
        self.index[node as usize] = self.met;
        self.low[node as usize] = self.met;
        self.met += 1;
        self.open.push(node);
    }

    fn lower(&mut self, node: Node, low: u32) {
        let known = &mut self.low[node as usize];
        *known = low.min(*known);
    }

    /// All edges of `node` were followed: if it reaches nothing earlier, its component is complete.
    fn leave(&mut self, node: Node) {
        if self.low[node as usize] != self.index[node as usize] {
            return;
        }
        let component = self.size.len() as u32;
        self.size.push(0);
        while let Some(member) = self.open.pop() {
            self.component[member as usize] = component;
            self.size[component as usize] += 1;
            if member == node {
                break;
            }
        }
    }
}

/// Each node's place in an order that no edge of `kinds` contradicts, as close to the order of nodes as
/// can be; `None` when there is a cycle.
pub(super) fn order(graph: &Graph, kinds: Kinds) -> Option<Vec<u32>> {
    let mut waits_for = vec![0_u32; graph.len()];
    let nodes = 0..graph.len() as Node;
    let following = |node| graph.edges(node).iter().filter(|edge| kinds.contains(edge.kind()));
    for edge in nodes.clone().flat_map(following) {
        waits_for[edge.to as usize] += 1;
    }
    let mut ready: BinaryHeap<Reverse<Node>> =
        nodes.filter(|node| waits_for[*node as usize] == 0).map(Reverse).collect();
    let mut place = vec![0; graph.len()];
    let mut placed = 0;
    while let Some(Reverse(node)) = ready.pop() {
        place[node as usize] = placed;
        placed += 1;
        for edge in following(node) {
            let left = &mut waits_for[edge.to as usize];
            *left -= 1;
            if *left == 0 {
                ready.push(Reverse(edge.to));
            }
        }
    }
    (placed as usize == graph.len()).then_some(place)
}
