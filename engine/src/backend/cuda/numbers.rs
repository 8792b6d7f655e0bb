use std::ops::Range;

use sparkherd_kernels::{Device, DeviceMemory};

use crate::backend::{
    BackendError,
    arena::{Arena, ArenaError},
};

/// Host memory that is held from now on, and not only once it is used.
pub(super) fn staging(bytes: usize) -> Result<Arena, BackendError> {
    let mut arena =
        Arena::map(bytes).map_err(|error: ArenaError| BackendError::Staging(error.to_string()))?;
    arena.populate(bytes, &mut |_| {});
    Ok(arena)
}

/// Kernels may read a list by words of 16 bytes.
const ALIGNMENT: usize = 4;

/// What the numbers of a list are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum List {
    Tokens,
    Slots,
    Positions,
    FirstBlocks,
    Rows,
    BlockTables,
    /// What attention is told of sequences of many rows.
    Sequences,
}

/// What a step is told in numbers: lists that lie one after the other on the device, sent in one copy when the step begins. What
/// is asked for later is sent when it is first asked for.
#[derive(Debug)]
pub(super) struct Numbers {
    memory: DeviceMemory,
    /// What is there.
    told: Arena,
    lists: Vec<(List, Range<usize>)>,
    end: usize,
}

impl Numbers {
    pub(super) fn new(device: &mut dyn Device, bytes: usize) -> Result<Self, BackendError> {
        let told = staging(bytes)?;
        Ok(Self { memory: device.allocate(bytes)?, told, lists: Vec::new(), end: 0 })
    }

    /// Forgets what was told: a step begins. Whatever still runs reads it before it is written again.
    pub(super) fn forget(&mut self) {
        self.lists.clear();
        self.end = 0;
    }

    /// Adds a list that [`Numbers::send`] will send.
    pub(super) fn tell(&mut self, list: List, values: &[u32]) -> Result<(), BackendError> {
        self.add(list, values).map(|_| ())
    }

    /// Sends everything told since [`Numbers::forget`].
    pub(super) fn send(&mut self, device: &mut dyn Device) -> Result<(), BackendError> {
        self.copy(device, 0..self.end)
    }

    /// Where these numbers are.
    pub(super) fn place(
        &mut self,
        device: &mut dyn Device,
        list: List,
        values: &[u32],
    ) -> Result<DeviceMemory, BackendError> {
        let told = self.told.as_slice::<u32>();
        let is_it =
            |(known, places): &&(List, Range<usize>)| *known == list && &told[places.clone()] == values;
        let known = self.lists.iter().find(is_it).map(|(_, places)| places.clone());
        let places = if let Some(places) = known {
            places
        } else {
            let places = self.add(list, values)?;
            self.copy(device, places.clone())?;
            places
        };
        Ok(self.memory.part(places.start * size_of::<u32>(), places.len() * size_of::<u32>())?)
    }

    fn add(&mut self, list: List, values: &[u32]) -> Result<Range<usize>, BackendError> {
        let limit = self.told.as_slice::<u32>().len();
        if self.end + values.len() > limit {
            // Operations outside a step tell one thing after the other.
            self.forget();
        }
        let places = self.end..self.end + values.len();
        let got = values.len();
        let beyond = BackendError::OutOfRange { operation: "numbers", what: "list", got, limit };
        self.told.as_mut_slice::<u32>().get_mut(places.clone()).ok_or(beyond)?.copy_from_slice(values);
        self.end = places.end.next_multiple_of(ALIGNMENT).min(limit);
        self.lists.push((list, places.clone()));
        Ok(places)
    }

    fn copy(&self, device: &mut dyn Device, places: Range<usize>) -> Result<(), BackendError> {
        let bytes = places.start * size_of::<u32>()..places.end * size_of::<u32>();
        let to = self.memory.part(bytes.start, bytes.len())?;
        Ok(device.write(to, &self.told.as_slice::<u8>()[bytes])?)
    }
}
