//! Who is treated alike: identities with the same filters share a class.

use std::collections::HashMap;

use rustc_hash::FxHashMap;

use super::ResolveError;
use super::filter::EVERYBODY;
use super::resolver::{Building, Resolver, number};
use super::spans::Compiler;
use crate::compiled::Classes;
use crate::identity::Identity;

impl Resolver<'_> {
    /// Joins the filters of every identity; identities with the same filters share a class.
    pub(super) fn compile(
        &mut self,
        building: Building,
        enforced: bool,
    ) -> Result<Classes, ResolveError> {
        let Building { filters, selectors, .. } = building;
        let mut by_selector: Vec<Vec<usize>> = vec![Vec::new(); selectors.len()];
        for (index, filter) in filters.list.iter().enumerate() {
            by_selector[filter.peer].push(index);
        }
        // Who is selected by the same selectors is of the same class. Each step from one combination of
        // selectors to the next is remembered, so that an identity costs a look-up a selector.
        let mut combinations: Vec<Vec<usize>> = vec![Vec::new()];
        let mut steps: FxHashMap<(u32, usize), u32> = FxHashMap::default();
        let mut of: FxHashMap<Identity, u32> = FxHashMap::default();
        for (selector_number, selector) in selectors.iter() {
            let (used, identities) =
                self.caches.selections.of(selector, self.around.identities, self.around.index);
            self.uses.selections.insert(used);
            for identity in identities.iter() {
                let combination = of.entry(*identity).or_insert(0);
                *combination = *steps.entry((*combination, selector_number)).or_insert_with(|| {
                    let mut next = combinations[*combination as usize].clone();
                    next.push(selector_number);
                    combinations.push(next);
                    number(combinations.len() - 1)
                });
            }
        }
        let mut compiler =
            Compiler { filters: &filters.list, sets: self.caches.sets, compiled: HashMap::new() };
        let mut classes = Classes { enforced, ..Classes::default() };
        let everybody = std::mem::take(&mut by_selector[EVERYBODY]);
        classes.classes.push(compiler.class(&everybody)?);
        let mut known: Vec<Option<u32>> = vec![None; combinations.len()];
        for combination in of.values_mut() {
            let place = *combination as usize;
            *combination = match known[place] {
                Some(class) => class,
                None => {
                    let own = combinations[place].iter().flat_map(|number| &by_selector[*number]);
                    let mut about: Vec<usize> = everybody.iter().chain(own).copied().collect();
                    about.sort_unstable();
                    classes.classes.push(compiler.class(&about)?);
                    let class = number(classes.classes.len() - 1);
                    known[place] = Some(class);
                    class
                }
            };
        }
        classes.by_identity = of;
        Ok(classes)
    }
}
