//! The load of an encoder's GPU, from NVML, which is called in the helper process.

use std::{
    sync::{Arc, Mutex, OnceLock, PoisonError, Weak},
    time::Duration,
};

use encoder_core::{DeviceLoad, HelperTask, LoadProbe};
use encoder_ffmpeg::helper::Helper;
use nvml_wrapper::{Device, Nvml};

use crate::facts::Found;

/// How long NVML may take for one query; it takes milliseconds.
const LIMIT: Duration = Duration::from_secs(5);

/// The engines of a GPU.
const ENGINES: [&str; 2] = ["encoder", "compute"];

/// Reports the load. The request has index and UUID of each GPU; the answer has, for each GPU that
/// answers, its index and the load of each of [`ENGINES`] in percent, `null` if the driver does not
/// report it. Both are JSON.
static TASK: HelperTask = HelperTask::new("nvenc-load", |request| {
    let gpus: Vec<(u32, String)> = serde_json::from_str(request).unwrap_or_default();
    let device = |uuid: &str| nvml()?.device_by_uuid(uuid).ok();
    let load = |(index, uuid): &(u32, String)| Some((*index, percent(&device(uuid)?)));
    let loads: Vec<_> = gpus.iter().filter_map(load).collect();
    serde_json::to_string(&loads).unwrap_or_default()
});
encoder_core::inventory::submit! { TASK }

/// Reports the load of the GPU `chosen`; if FFmpeg chooses, of each GPU that it may take. `None` if
/// the GPU of the index is not known.
pub(crate) fn probe(found: &Found, chosen: Option<u32>) -> Option<LoadProbe> {
    let gpus = gpus(found, chosen);
    if gpus.is_empty() {
        return None;
    }
    let (request, helper) = (serde_json::to_string(&gpus).ok()?, helper());
    Some(LoadProbe::new(move || {
        let mut helper = helper.lock().unwrap_or_else(PoisonError::into_inner);
        let answer = helper.as_mut().and_then(|helper| helper.ask(&request, LIMIT).ok());
        let Some(answer) = answer else {
            // A driver that does not answer, or crashes, is not asked again.
            *helper = None;
            return Vec::new();
        };
        let loads: Vec<(u32, [Option<u32>; 2])> = serde_json::from_str(&answer).unwrap_or_default();
        loads.into_iter().flat_map(|(index, percent)| loads_of(index, percent)).collect()
    }))
}

/// The helper process for the load, which all encoders share. It runs as long as an encoder does.
fn helper() -> Arc<Mutex<Option<Helper>>> {
    static SHARED: Mutex<Weak<Mutex<Option<Helper>>>> = Mutex::new(Weak::new());
    let mut shared = SHARED.lock().unwrap_or_else(PoisonError::into_inner);
    shared.upgrade().unwrap_or_else(|| {
        let helper = Arc::new(Mutex::new(Some(Helper::new(&TASK))));
        *shared = Arc::downgrade(&helper);
        helper
    })
}

/// Index and UUID of the GPUs to report.
fn gpus(found: &Found, chosen: Option<u32>) -> Vec<(u32, String)> {
    let able = found.gpus.iter().filter(|gpu| gpu.known && !gpu.bare);
    let wanted = able.filter(|gpu| chosen.is_none_or(|index| index == gpu.index));
    wanted.map(|gpu| (gpu.index, gpu.key.clone())).collect()
}

/// NVML, loaded once and kept: loading it takes longer than a query.
fn nvml() -> Option<&'static Nvml> {
    static NVML: OnceLock<Option<Nvml>> = OnceLock::new();
    NVML.get_or_init(|| Nvml::init().ok()).as_ref()
}

/// The load of each of [`ENGINES`] in percent.
fn percent(gpu: &Device<'_>) -> [Option<u32>; 2] {
    let encoder = gpu.encoder_utilization().ok().map(|used| used.utilization);
    [encoder, gpu.utilization_rates().ok().map(|used| used.gpu)]
}

fn loads_of(index: u32, percent: [Option<u32>; 2]) -> impl Iterator<Item = DeviceLoad> {
    let load = move |(engine, percent): (&'static str, Option<u32>)| {
        let ratio = f64::from(percent?) / 100.0;
        Some(DeviceLoad { device: index.to_string(), engine, ratio })
    };
    ENGINES.into_iter().zip(percent).filter_map(load)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::facts::Candidate;

    #[test]
    fn the_load_is_that_of_the_encoders_gpu() {
        let gpu = |index, known, bare| Candidate {
            index,
            key: format!("GPU-{index}"),
            name: None,
            known,
            bare,
        };
        // GPUs | chosen | reported
        let table: &[(&[(bool, bool)], Option<u32>, &[u32])] = &[
            (&[(true, false)], None, &[0]),
            (&[(true, false), (true, false)], None, &[0, 1]),
            (&[(true, false), (true, false)], Some(1), &[1]),
            (&[(true, true), (true, false)], None, &[1]),
            (&[(false, false), (false, false)], Some(1), &[]),
            (&[], None, &[]),
        ];
        for (gpus, chosen, expected) in table {
            let gpus = (0..).zip(*gpus).map(|(index, (known, bare))| gpu(index, *known, *bare));
            let found = Found { gpus: gpus.collect(), ..Found::default() };
            let reported: Vec<_> =
                super::gpus(&found, *chosen).into_iter().map(|(n, _)| n).collect();
            assert_eq!(reported, *expected);
            assert_eq!(probe(&found, *chosen).is_some(), !expected.is_empty());
        }
    }
}
