//! The columns of one scope: which column a part goes to, in which order, and at which height.

use std::collections::BTreeMap;

use super::layout::Area;

pub(super) const GAP_X: f64 = 56.0;
const GAP_Y: f64 = 18.0;
/// A line that passes a column takes this much of its height.
const LANE: f64 = 12.0;
/// Places for passing lines; beyond that, long lines go straight.
const MAX_LANES: usize = 6_000;

/// A part of one scope: a node, a group as a whole, or the place of a passing line.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Part {
    Node(usize),
    Group(usize),
    Lane(usize),
}

/// The columns of one scope.
pub(super) struct Rows {
    pub parts: Vec<Part>,
    pub areas: Vec<Area>,
    pub level: Vec<usize>,
    /// The edges that run through each lane.
    pub lanes: Vec<Vec<usize>>,
    /// Slots by column, from top to bottom.
    rows: Vec<Vec<usize>>,
    /// Left edge and width of each column.
    pub columns: Vec<(f64, f64)>,
    before: Vec<Vec<usize>>,
    after: Vec<Vec<usize>>,
}

/// Lines of one scope, by the parts and the edges that they belong to.
#[derive(Default)]
pub(super) struct Lines {
    /// From part to part.
    pub inner: Vec<(usize, usize, usize)>,
    /// From a part to somewhere outside.
    pub exits: Vec<(usize, usize)>,
    /// From somewhere outside to a part.
    pub entries: Vec<(usize, usize)>,
}

impl Rows {
    pub fn new(parts: Vec<Part>, sizes: Vec<(f64, f64)>, lines: &Lines) -> Self {
        let areas =
            sizes.iter().map(|(width, height)| Area { width: *width, height: *height, ..Area::default() }).collect();
        let forward = forward(parts.len(), &lines.inner);
        let pairs: Vec<(usize, usize)> = forward.iter().map(|(from, to, _)| (*from, *to)).collect();
        let level = super::levels(parts.len(), &pairs);
        let count = parts.len();
        let mut rows = Rows {
            parts,
            areas,
            level,
            lanes: Vec::new(),
            rows: Vec::new(),
            columns: Vec::new(),
            before: vec![Vec::new(); count],
            after: vec![Vec::new(); count],
        };
        rows.sink_to_users(&forward);
        let depth = rows.level.iter().max().map_or(0, |deepest| deepest + 1);
        // Lines between the same two parts run together, and so do those that leave or reach one.
        let mut bundles: BTreeMap<(Option<usize>, Option<usize>), Vec<usize>> = BTreeMap::new();
        let inner = forward.iter().map(|(from, to, edge)| ((Some(*from), Some(*to)), *edge));
        let exits = lines.exits.iter().map(|(from, edge)| ((Some(*from), None), *edge));
        let entries = lines.entries.iter().map(|(to, edge)| ((None, Some(*to)), *edge));
        inner.chain(exits).chain(entries).for_each(|(ends, edge)| bundles.entry(ends).or_default().push(edge));
        let passed = |(from, to): (Option<usize>, Option<usize>)| {
            from.map_or(0, |from| rows.level[from] + 1)..to.map_or(depth, |to| rows.level[to])
        };
        let bundles: Vec<_> = bundles.into_iter().map(|(ends, edges)| (ends, passed(ends), edges)).collect();
        let fits = bundles.iter().map(|(_, levels, _)| levels.len()).sum::<usize>() <= MAX_LANES;
        for ((from, to), levels, edges) in bundles {
            let mut last = from;
            for level in levels.filter(|_| fits) {
                let slot = rows.lane(level, edges.clone());
                rows.join(last, Some(slot));
                last = Some(slot);
            }
            rows.join(last, to);
        }
        rows.rows = vec![Vec::new(); depth];
        for slot in 0..rows.parts.len() {
            rows.rows[rows.level[slot]].push(slot);
        }
        rows
    }

    fn lane(&mut self, level: usize, edges: Vec<usize>) -> usize {
        self.parts.push(Part::Lane(self.lanes.len()));
        self.lanes.push(edges);
        self.areas.push(Area { height: LANE, ..Area::default() });
        self.level.push(level);
        self.before.push(Vec::new());
        self.after.push(Vec::new());
        self.parts.len() - 1
    }

    fn join(&mut self, from: Option<usize>, to: Option<usize>) {
        if let (Some(from), Some(to)) = (from, to) {
            self.after[from].push(to);
            self.before[to].push(from);
        }
    }

    /// What nothing in the scope comes before stands just before what needs it, not in the far first column.
    fn sink_to_users(&mut self, edges: &[(usize, usize, usize)]) {
        let mut has_before = vec![false; self.parts.len()];
        let mut nearest = vec![usize::MAX; self.parts.len()];
        for (from, to, _) in edges {
            has_before[*to] = true;
            nearest[*from] = nearest[*from].min(self.level[*to]);
        }
        for slot in 0..self.parts.len() {
            if !has_before[slot] && nearest[slot] != usize::MAX {
                self.level[slot] = nearest[slot] - 1;
            }
        }
    }

    /// Sweeps right and left, each time sorting a column by the middle of what its slots are joined to.
    pub fn order(&mut self) {
        let sweeps = if self.parts.len() > 4_000 { 2 } else { 12 };
        let mut best = self.rows.clone();
        let mut fewest = self.crossings();
        for sweep in 0..sweeps {
            if fewest == 0 {
                break;
            }
            let mut position = vec![0.0; self.parts.len()];
            let note = |row: &[usize], position: &mut Vec<f64>| {
                row.iter().enumerate().for_each(|(at, slot)| position[*slot] = at as f64);
            };
            self.rows.iter().for_each(|row| note(row, &mut position));
            let forwards = sweep % 2 == 0;
            let columns: Vec<usize> = if forwards {
                (1..self.rows.len()).collect()
            } else {
                (0..self.rows.len().saturating_sub(1)).rev().collect()
            };
            for column in columns {
                let joined = if forwards { &self.before } else { &self.after };
                let centre = |slot: usize| match joined[slot].len() {
                    0 => position[slot],
                    n => joined[slot].iter().map(|other| position[*other]).sum::<f64>() / n as f64,
                };
                let mut row = std::mem::take(&mut self.rows[column]);
                let keys: std::collections::HashMap<usize, f64> =
                    row.iter().map(|slot| (*slot, centre(*slot))).collect();
                row.sort_by(|a, b| keys[a].total_cmp(&keys[b]));
                note(&row, &mut position);
                self.rows[column] = row;
            }
            let crossings = self.crossings();
            if crossings < fewest {
                fewest = crossings;
                best.clone_from(&self.rows);
            }
        }
        self.rows = best;
    }

    /// How many pairs of lines cross, by counting inversions between neighbouring columns.
    fn crossings(&self) -> usize {
        let mut position = vec![0; self.parts.len()];
        for row in &self.rows {
            row.iter().enumerate().for_each(|(at, slot)| position[*slot] = at);
        }
        let mut total = 0;
        for row in &self.rows {
            let mut ends: Vec<usize> = Vec::new();
            for slot in row {
                let mut to: Vec<usize> = self.after[*slot]
                    .iter()
                    .filter(|t| self.level[**t] == self.level[*slot] + 1)
                    .map(|t| position[*t])
                    .collect();
                to.sort_unstable();
                ends.extend(to);
            }
            total += inversions(&ends);
        }
        total
    }

    /// Columns side by side; in each, the heights nearest to the middle of what the slots are joined to.
    pub fn place(&mut self) {
        let mut x = 0.0;
        for row in &self.rows {
            let width = row.iter().map(|slot| self.areas[*slot].width).fold(0.0, f64::max);
            let lines = row.iter().map(|slot| self.after[*slot].len()).sum::<usize>();
            self.columns.push((x, width));
            x += width + GAP_X + (lines as f64).sqrt().min(8.0) * 3.0;
        }
        for row in &self.rows {
            let mut y = 0.0;
            for slot in row {
                self.areas[*slot].y = y;
                y += self.areas[*slot].height + GAP_Y;
            }
        }
        let rounds = if self.parts.len() > 4_000 { 4 } else { 40 };
        for round in 0..rounds {
            let forwards = round % 2 == 0;
            for number in 0..self.rows.len() {
                let column = if forwards { number } else { self.rows.len() - 1 - number };
                let row = self.rows[column].clone();
                self.settle(&row, forwards, round * 2 >= rounds);
            }
        }
        let top = self.areas.iter().map(|area| area.y).fold(f64::INFINITY, f64::min);
        for slot in 0..self.parts.len() {
            let (left, _) = self.columns[self.level[slot]];
            let area = &mut self.areas[slot];
            area.x = left;
            area.y = (area.y - top).round();
        }
    }

    /// Moves the slots of a column towards what they are joined to, keeping order and gaps: pools of neighbours that
    /// would overlap share the mean of their wishes.
    fn settle(&mut self, row: &[usize], forwards: bool, both: bool) {
        struct Pool {
            sum: f64,
            weight: f64,
            slots: usize,
        }
        let mut offsets = Vec::with_capacity(row.len());
        let mut offset = 0.0;
        let mut pools: Vec<Pool> = Vec::new();
        let mut leading = 0;
        for slot in row {
            let area = self.areas[*slot];
            let (first, second) = if forwards { (&self.before, &self.after) } else { (&self.after, &self.before) };
            let mut joined: Vec<usize> = first[*slot].clone();
            // A passing line follows one neighbour exactly: the mean of two would be a slope.
            let is_lane = matches!(self.parts[*slot], Part::Lane(_));
            if joined.is_empty() || (both && !is_lane) {
                joined.extend(&second[*slot]);
            }
            let middle =
                joined.iter().map(|other| self.areas[*other].middle()).sum::<f64>() / joined.len().max(1) as f64;
            let wish = middle - area.height / 2.0 - offset;
            offsets.push(offset);
            offset += area.height + GAP_Y;
            if joined.is_empty() {
                // What is joined to nothing stays with its neighbour in the column.
                match pools.last_mut() {
                    Some(pool) => pool.slots += 1,
                    None => leading += 1,
                }
                continue;
            }
            let weight = if is_lane { 8.0 } else { 1.0 };
            pools.push(Pool { sum: wish * weight, weight, slots: 1 + std::mem::take(&mut leading) });
            while pools.len() > 1 {
                let (last, previous) = (&pools[pools.len() - 1], &pools[pools.len() - 2]);
                if last.sum / last.weight >= previous.sum / previous.weight {
                    break;
                }
                let last = pools.pop().expect("two pools");
                let previous = pools.last_mut().expect("two pools");
                previous.sum += last.sum;
                previous.weight += last.weight;
                previous.slots += last.slots;
            }
        }
        let mut at = 0;
        for pool in pools {
            for _ in 0..pool.slots {
                self.areas[row[at]].y = pool.sum / pool.weight + offsets[at];
                at += 1;
            }
        }
    }

    pub fn size(&self) -> (f64, f64) {
        let width = self.columns.last().map_or(0.0, |(left, width)| left + width);
        let height = self.areas.iter().map(|area| area.y + area.height).fold(0.0, f64::max);
        (width, height)
    }
}

/// The edges without those that close a circle: two groups may need tasks of each other.
fn forward(count: usize, edges: &[(usize, usize, usize)]) -> Vec<(usize, usize, usize)> {
    let mut after: Vec<Vec<(usize, usize)>> = vec![Vec::new(); count];
    for (number, (from, to, _)) in edges.iter().enumerate() {
        after[*from].push((*to, number));
    }
    let mut state = vec![0u8; count];
    let mut back = vec![false; edges.len()];
    for root in 0..count {
        let mut stack = vec![(root, 0)];
        while let Some((at, next)) = stack.pop() {
            if next == 0 {
                if state[at] != 0 {
                    continue;
                }
                state[at] = 1;
            }
            match after[at].get(next) {
                None => state[at] = 2,
                Some((to, number)) => {
                    stack.push((at, next + 1));
                    match state[*to] {
                        0 => stack.push((*to, 0)),
                        1 => back[*number] = true,
                        _ => {}
                    }
                }
            }
        }
    }
    edges.iter().enumerate().filter(|(number, _)| !back[*number]).map(|(_, edge)| *edge).collect()
}

/// Pairs in the wrong order, by a tree of counts.
fn inversions(values: &[usize]) -> usize {
    let size = values.iter().max().map_or(0, |most| most + 1);
    let mut tree = vec![0usize; size + 1];
    let mut total = 0;
    for (seen, value) in values.iter().enumerate() {
        let mut at = value + 1;
        let mut not_above = 0;
        while at > 0 {
            not_above += tree[at];
            at &= at - 1;
        }
        total += seen - not_above;
        let mut at = value + 1;
        while at <= size {
            tree[at] += 1;
            at += at & at.wrapping_neg();
        }
    }
    total
}
