//! The load of an encoder's GPU, from NVML.

use std::sync::OnceLock;

use encoder_core::{DeviceLoad, LoadProbe};
use nvml_wrapper::{Device, Nvml};

use crate::facts::Found;

/// Reports the load of the GPU `chosen`; if FFmpeg chooses, of each GPU that it may take. `None` if
/// the GPU of the index is not known.
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
