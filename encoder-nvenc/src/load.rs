//! How busy the GPU of an encoder is, by NVML.

use std::sync::OnceLock;

use encoder_core::{DeviceLoad, LoadProbe};
use nvml_wrapper::{Device, Nvml};

use crate::device::Found;

/// Asks for the GPU `chosen`; where FFmpeg chooses, for each one that it may take. `None` where it
/// is not known which GPU an index means.
pub(crate) fn probe(found: &Found, chosen: Option<u32>) -> Option<LoadProbe> {
    let gpus = gpus(found, chosen);
    if gpus.is_empty() {
        return None;
    }
    Some(LoadProbe::new(move || {
        let device = |uuid: &str| nvml()?.device_by_uuid(uuid).ok();
        let loads = gpus.iter().filter_map(|(index, uuid)| Some(loads(*index, &device(uuid)?)));
        loads.flatten().collect()
    }))
}

/// Index and UUID of the GPUs to ask for.
fn gpus(found: &Found, chosen: Option<u32>) -> Vec<(u32, String)> {
    let able = found.gpus.iter().filter(|gpu| gpu.known && !gpu.bare);
    let wanted = able.filter(|gpu| chosen.is_none_or(|index| index == gpu.index));
    wanted.map(|gpu| (gpu.index, gpu.key.clone())).collect()
}

/// NVML, loaded once and kept: to start it takes longer than to ask.
fn nvml() -> Option<&'static Nvml> {
    static NVML: OnceLock<Option<Nvml>> = OnceLock::new();
    NVML.get_or_init(|| Nvml::init().ok()).as_ref()
}

fn loads(index: u32, gpu: &Device<'_>) -> Vec<DeviceLoad> {
    let encoder = gpu.encoder_utilization().ok().map(|used| ("encoder", used.utilization));
    let compute = gpu.utilization_rates().ok().map(|used| ("compute", used.gpu));
    let load = |(engine, percent)| DeviceLoad {
        device: index.to_string(),
        engine,
        ratio: f64::from(percent) / 100.0,
    };
    encoder.into_iter().chain(compute).map(load).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::device::Candidate;

    #[test]
    fn the_gpu_of_the_encoder_is_asked_for() {
        let gpu = |index, known, bare| Candidate {
            index,
            key: format!("GPU-{index}"),
            name: None,
            known,
            bare,
        };
        // GPUs | chosen | asked for
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
            let found = Found {
                name: String::new(),
                driver: None,
                identity: Vec::new(),
                gpus: gpus.collect(),
            };
            let asked: Vec<_> = super::gpus(&found, *chosen).into_iter().map(|(n, _)| n).collect();
            assert_eq!(asked, *expected);
            assert_eq!(probe(&found, *chosen).is_some(), !expected.is_empty());
        }
    }
}
