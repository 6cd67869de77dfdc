//! Values of offsets, as ranges of offsets with equal values that cover everything between two offsets.

use std::collections::BTreeMap;

/// See the module's documentation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Ranges<T> {
    /// The first offset; everything before it is of no interest any more.
    start: i64,
    /// The first offset after all of them.
    end: i64,
    /// By first offset. Each ends where the next one begins.
    values: BTreeMap<i64, T>,
}

/// A range of offsets that have the same value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Range<'a, T> {
    pub(super) first: i64,
    pub(super) last: i64,
    pub(super) value: &'a T,
}

impl<T: Clone + PartialEq> Ranges<T> {
    /// Without any offset.
    pub(super) fn new(start: i64) -> Self {
        Self {
            start,
            end: start,
            values: BTreeMap::new(),
        }
    }

    pub(super) fn start(&self) -> i64 {
        self.start
    }

    pub(super) fn end(&self) -> i64 {
        self.end
    }

    /// How many offsets.
    pub(super) fn len(&self) -> i64 {
        self.end - self.start
    }

    /// All ranges in order.
    pub(super) fn iter(&self) -> impl Iterator<Item = Range<'_, T>> {
        self.within(self.start, self.end - 1)
    }

    /// The ranges that have offsets between these two, both included, cut to those.
    pub(super) fn within(&self, first: i64, last: i64) -> impl Iterator<Item = Range<'_, T>> {
        let (first, last) = (first.max(self.start), last.min(self.end - 1));
        let from = self.values.range(..=first).next_back();
        let from = from.map_or(first, |(begin, _)| *begin);
        let begins = self
            .values
            .range(from..)
            .take_while(move |(begin, _)| **begin <= last);
        let ends = self
            .values
            .range(from..)
            .skip(1)
            .map(|(begin, _)| begin - 1);
        let ends = ends.chain([self.end - 1]);
        begins
            .zip(ends)
            .filter(move |_| first <= last)
            .map(move |((begin, value), end)| Range {
                first: (*begin).max(first),
                last: end.min(last),
                value,
            })
    }

    /// The range that holds an offset, whole.
    pub(super) fn holding(&self, offset: i64) -> Option<Range<'_, T>> {
        if !(self.start..self.end).contains(&offset) {
            return None;
        }
        let (first, value) = self.values.range(..=offset).next_back()?;
        let next = self.values.range(offset + 1..).next();
        let last = next.map_or(self.end, |(begin, _)| *begin) - 1;
        Some(Range {
            first: *first,
            last,
            value,
        })
    }

    /// Changes the values of the offsets between these two, both included, as far as they are here.
    pub(super) fn change(&mut self, first: i64, last: i64, mut change: impl FnMut(&mut T)) {
        let (first, last) = (first.max(self.start), last.min(self.end - 1));
        if first > last {
            return;
        }
        self.cut(first);
        self.cut(last + 1);
        let changed = self.values.range_mut(first..=last);
        changed.for_each(|(_, value)| change(value));
        self.join(first, last + 1);
    }

    /// Changes the values of all offsets.
    pub(super) fn change_all(&mut self, change: impl FnMut(&mut T)) {
        self.change(self.start, self.end - 1, change);
    }

    /// Adds the offsets up to `last`, all with one value.
    pub(super) fn extend(&mut self, last: i64, value: T) {
        if last < self.end {
            return;
        }
        let first = self.end;
        self.values.insert(first, value);
        self.end = last + 1;
        self.join(first, first);
    }

    /// Drops everything before an offset; begins there where it is at or after the end.
    pub(super) fn drop_before(&mut self, offset: i64) {
        if offset <= self.start {
            return;
        }
        self.cut(offset);
        self.values = self.values.split_off(&offset);
        self.start = offset;
        self.end = self.end.max(offset);
    }

    /// Drops everything at and after an offset.
    pub(super) fn drop_from(&mut self, offset: i64) {
        if offset >= self.end {
            return;
        }
        self.cut(offset);
        self.values.split_off(&offset);
        self.end = offset;
        self.start = self.start.min(offset);
    }

    /// Lets a range begin at an offset.
    fn cut(&mut self, offset: i64) {
        if (self.start..self.end).contains(&offset) && !self.values.contains_key(&offset) {
            let holding = self.values.range(..offset).next_back();
            if let Some(value) = holding.map(|(_, value)| value.clone()) {
                self.values.insert(offset, value);
            }
        }
    }

    /// Lets neighbours that begin between these two, both included, be one range where their values are equal.
    fn join(&mut self, from: i64, to: i64) {
        let before = self.values.range(..from).next_back();
        let mut last = before.map(|(_, value)| value.clone());
        let mut equal = Vec::new();
        for (begin, value) in self.values.range(from..=to) {
            match last.as_ref() == Some(value) {
                true => equal.push(*begin),
                false => last = Some(value.clone()),
            }
        }
        for begin in equal {
            self.values.remove(&begin);
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[derive(Debug, Clone)]
    enum Step {
        Change(i64, i64, u8),
        Extend(i64, u8),
        DropBefore(i64),
        DropFrom(i64),
    }

    fn step() -> impl Strategy<Value = Step> {
        let offset = 0..40_i64;
        let value = 0..3_u8;
        prop_oneof![
            (offset.clone(), offset.clone(), value.clone())
                .prop_map(|(a, b, v)| Step::Change(a, b, v)),
            (offset.clone(), value).prop_map(|(a, v)| Step::Extend(a, v)),
            offset.clone().prop_map(Step::DropBefore),
            offset.prop_map(Step::DropFrom),
        ]
    }

    proptest! {
        #[test]
        fn ranges_hold_what_a_list_of_values_holds_and_neighbours_differ(
            steps in prop::collection::vec(step(), 1..40)
        ) {
            let mut ranges = Ranges::new(5);
            let mut list: BTreeMap<i64, u8> = BTreeMap::new();
            let (mut start, mut end) = (5, 5);
            for step in steps {
                match step {
                    Step::Change(first, last, value) => {
                        ranges.change(first, last, |old| *old = value);
                        list.iter_mut()
                            .filter(|(offset, _)| (first..=last).contains(*offset))
                            .for_each(|(_, old)| *old = value);
                    }
                    Step::Extend(last, value) => {
                        ranges.extend(last, value);
                        list.extend((end..=last).map(|offset| (offset, value)));
                        end = end.max(last + 1);
                    }
                    Step::DropBefore(offset) => {
                        ranges.drop_before(offset);
                        list = list.split_off(&offset);
                        start = start.max(offset);
                        end = end.max(start);
                    }
                    Step::DropFrom(offset) => {
                        ranges.drop_from(offset);
                        list.split_off(&offset);
                        end = end.min(offset);
                        start = start.min(end);
                    }
                }
                prop_assert_eq!((ranges.start(), ranges.end(), ranges.len()), (start, end, end - start));
                let held: BTreeMap<i64, u8> = ranges
                    .iter()
                    .flat_map(|range| (range.first..=range.last).map(move |offset| (offset, *range.value)))
                    .collect();
                prop_assert_eq!(&held, &list);
                let values: Vec<u8> = ranges.iter().map(|range| *range.value).collect();
                prop_assert!(values.windows(2).all(|two| two[0] != two[1]), "{:?}", values);
                for offset in 0..41 {
                    let range = ranges.holding(offset);
                    prop_assert_eq!(range.map(|range| *range.value), list.get(&offset).copied());
                    prop_assert!(range.is_none_or(|range| (range.first..=range.last).contains(&offset)));
                    let some: Vec<i64> = ranges
                        .within(offset, offset + 7)
                        .flat_map(|range| range.first..=range.last)
                        .collect();
                    let expected: Vec<i64> = list.range(offset..=offset + 7).map(|(at, _)| *at).collect();
                    prop_assert_eq!(some, expected);
                }
            }
        }
    }
}
