//! What a writer leaves in a bucket is what its callers asked for, at every LSN.

mod common;

use common::{History, block_on, domain, model_image, options, submit, writer};
use proptest::prelude::*;
use std::time::Duration;
use tidemark_bucket::{Fault, Faults, Op};
use tidemark_env::Env;
use tidemark_format::Lsn;
use tidemark_model::{DomainModel, OpsShape, any_ops, calls};
use tidemark_writer::DomainWriter;

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]

    //= SPEC.md#events
    //# E-4
    #[test]
    fn prop_every_lsn_over_several_writers_equals_the_model(
        ops in any_ops(OpsShape::default()),
        restarts in proptest::collection::vec(any::<prop::sample::Index>(), 0..4),
        threads in 1..4usize,
        chaos in proptest::option::of(any::<u64>()),
    ) {
        let mut model = DomainModel::new();
        for op in &ops {
            model.apply(op);
        }
        let groups = calls(&ops);
        let mut cuts: Vec<usize> = restarts.iter().map(|at| at.index(groups.len() + 1)).collect();
        cuts.sort_unstable();
        cuts.push(groups.len());
        let history = block_on(async {
            let calm = domain().await;
            let faults = Faults::seeded(chaos.unwrap_or(0))
                .on("", None, Fault::Error, 0.1)
                .on("", Op::Put, Fault::AppliedLost, 0.1)
                .on("log/", Op::Put, Fault::Slow(Duration::from_millis(2)), 0.3);
            let bucket = if chaos.is_some() { calm.with_faults(faults) } else { calm.clone() };
            let mut done = 0;
            for cut in cuts {
                let options = tidemark_writer::WriterOptions { compress_threads_max: threads, ..options() };
                let writer = DomainWriter::open(bucket.appender(), options, Env::system()).await.unwrap();
                let mut last = None;
                for group in &groups[done..cut] {
                    let ticket = submit(&writer, group).await.unwrap();
                    assert_eq!(ticket.lsn(), writer.last_lsn());
                    last = Some(ticket);
                }
                done = cut;
                // Some close, some die right after their last write was acknowledged.
                if cut % 2 == 0 {
                    writer.close().await.unwrap();
                } else if let Some(ticket) = last {
                    ticket.committed().await.unwrap();
                }
            }
            History::read(&calm.read_only()).await
        });
        prop_assert_eq!(history.last(), model.latest());
        for lsn in 0..=model.latest().get() {
            let lsn = Lsn::new(lsn);
            prop_assert!(history.image(lsn) == model_image(&model, lsn), "images differ at lsn {lsn}");
        }
        prop_assert!(history.at.windows(2).all(|pair| pair[0].time <= pair[1].time));
    }
}

#[test]
fn an_empty_writer_leaves_a_cut_and_nothing_else() {
    block_on(async {
        let bucket = domain().await;
        writer(&bucket).await.close().await.unwrap();
        writer(&bucket).await.close().await.unwrap();
        let history = History::read(&bucket.read_only()).await;
        assert_eq!(history.last(), Lsn::ZERO);
        assert_eq!(history.segments.into_iter().collect::<Vec<_>>(), [(1, 0), (2, 0)]);
    });
}
