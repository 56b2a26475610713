//! Random rows, deletions, merges and tellings against a plain list.

use std::collections::BTreeMap;

use arrow::array::AsArray;
use arrow::datatypes::{DataType, Field, Int64Type, Schema};
use freshet_types::keys::hash_int;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use super::super::FoundBy;
use super::*;

/// The rows that should be there: by id, key and value and weight, and whether they were told.
type Model = BTreeMap<u32, (i64, i64, i64, bool)>;

fn spilled(folder: &Arc<SpillFolder>) -> SpilledRows {
    let fields = ["k", "v"].map(|name| Field::new(name, DataType::Int64, true));
    let schema = Arc::new(Schema::new(fields.to_vec()));
    SpilledRows::new(folder.clone(), Layout::new(schema, FoundBy::KeyAndContent))
}

fn content(key: i64, value: i64) -> u64 {
    hash_int(key * 1_000_003 + value)
}

fn add(rows: &mut SpilledRows, model: &mut Model, ids: &mut u32, random: &mut StdRng) {
    let count = random.random_range(1..200);
    let mut pairs: Vec<(i64, i64)> =
        (0..count).map(|_| (random.random_range(0..60_i64).pow(2) / 7, random.random_range(0..4))).collect();
    pairs.sort_by_key(|(key, value)| (hash_int(*key), content(*key, *value)));
    let (keys, values): (Vec<i64>, Vec<i64>) = pairs.into_iter().unzip();
    let weights: Vec<i64> = (0..count).map(|_| random.random_range(1..4)).collect();
    let untold: Vec<bool> = (0..count).map(|_| random.random_bool(0.5)).collect();
    let new: Vec<u32> = (*ids..).take(count).collect();
    *ids += u32::try_from(count).unwrap();
    for row in 0..count {
        model.insert(new[row], (keys[row], values[row], weights[row], !untold[row]));
    }
    let contents = keys.iter().zip(&values).map(|(key, value)| content(*key, *value)).collect();
    let column = |values: &[i64]| Arc::new(Int64Array::from(values.to_vec())) as ArrayRef;
    let columns = vec![column(&keys), column(&values)];
    let hashes = keys.iter().map(|key| hash_int(*key)).collect();
    let part = NewRows { hashes, contents: Some(contents), ids: new, weights, columns, untold };
    rows.add::<SpillError>(count, std::iter::once(Ok(part))).unwrap();
}

/// What is found for `wanted`: tag, id, key, value, weight, sorted.
fn find(rows: &SpilledRows, wanted: &mut [(Wanted, u32)]) -> Vec<(u32, u32, i64, i64, i64)> {
    wanted.sort_unstable();
    let mut all = Vec::new();
    rows.find::<SpillError>(wanted, &mut |found| {
        let [keys, values] = [0, 1].map(|column| found.columns()[column].as_primitive::<Int64Type>());
        all.extend(found.pairs.iter().map(|(tag, row)| {
            let at = *row as usize;
            (*tag, found.id(*row), keys.value(at), values.value(at), found.weight(*row))
        }));
        Ok(())
    })
    .unwrap();
    all.sort_unstable();
    all
}

fn check_keys(rows: &SpilledRows, model: &Model, random: &mut StdRng) {
    let keys: Vec<i64> = (0..20).map(|_| random.random_range(0..550)).collect();
    let mut wanted: Vec<_> =
        (0..).zip(&keys).map(|(tag, key)| (Wanted { hash: hash_int(*key), content: None }, tag)).collect();
    let mut expected = Vec::new();
    for (tag, key) in (0_u32..).zip(&keys) {
        let equal = model.iter().filter(|(_, row)| row.0 == *key);
        expected.extend(equal.map(|(id, row)| (tag, *id, row.0, row.1, row.2)));
    }
    expected.sort_unstable();
    assert_eq!(find(rows, &mut wanted), expected);
}

/// All rows, range by range.
fn check_ranges(rows: &SpilledRows, model: &Model) {
    let (mut first, mut last, mut found) = (0, None, Vec::new());
    loop {
        let next = rows.range::<SpillError>(first, &mut |part| {
            let [keys, values] = [0, 1].map(|column| part.columns()[column].as_primitive::<Int64Type>());
            for (_, row) in part.pairs {
                let at = *row as usize;
                assert!(hash_int(keys.value(at)) >= first, "a row of an earlier range");
                last = last.max(Some(hash_int(keys.value(at))));
                let is_told = !part.is_untold(*row);
                found.push((part.id(*row), (keys.value(at), values.value(at), part.weight(*row), is_told)));
            }
            Ok(())
        });
        let Some(next) = next.unwrap() else { break };
        assert!(last.is_none_or(|last| last < next) && next > first);
        first = next;
    }
    found.sort_unstable();
    assert_eq!(found, model.iter().map(|(id, row)| (*id, *row)).collect::<Vec<_>>());
}

fn delete_some(rows: &mut SpilledRows, model: &mut Model, random: &mut StdRng) {
    let ids: Vec<u32> = model.keys().copied().filter(|_| random.random_bool(0.3)).collect();
    for id in ids {
        let (key, value, ..) = model[&id];
        let wanted = [(Wanted { hash: hash_int(key), content: Some(content(key, value)) }, 0)];
        let mut place = None;
        rows.find::<SpillError>(&wanted, &mut |found| {
            let own = found.pairs.iter().find(|(_, row)| found.id(*row) == id);
            place = own.map(|(_, row)| found.place(*row)).or(place);
            Ok(())
        })
        .unwrap();
        rows.remove(place.expect("the row is there"));
        model.remove(&id).unwrap();
    }
}

/// What has yet to be told, and what that should be.
struct Telling {
    untold: Untold,
    expected: Vec<(u32, i64)>,
}

fn tell(rows: &mut SpilledRows, model: &mut Model) -> Telling {
    let expected = model.iter().filter(|(_, row)| !row.3).map(|(id, row)| (*id, row.2)).collect();
    model.values_mut().for_each(|row| row.3 = true);
    Telling { untold: rows.take_untold(), expected }
}

fn check_told(telling: &Telling) {
    let mut told = Vec::new();
    for piece in 0..telling.untold.pieces() {
        let rows = telling.untold.piece(piece).unwrap();
        told.extend(rows.ids.into_iter().zip(rows.weights));
    }
    told.sort_unstable();
    assert_eq!(told, telling.expected);
}

#[test]
fn rows_are_found_through_merges_and_deletions() {
    let folder = tempfile::tempdir().unwrap();
    let spill = SpillFolder::open(folder.path()).unwrap();
    for seed in 0..6 {
        let (mut random, mut rows) = (StdRng::seed_from_u64(seed), spilled(&spill));
        let (mut model, mut ids) = (Model::new(), 0);
        let mut telling = None;
        for _ in 0..60 {
            match random.random_range(0..10) {
                0..5 => add(&mut rows, &mut model, &mut ids, &mut random),
                5 | 6 => delete_some(&mut rows, &mut model, &mut random),
                // Read when much else has happened since.
                7 => telling.replace(tell(&mut rows, &mut model)).iter().for_each(check_told),
                _ => rows.work(random.random_range(1..500)).unwrap(),
            }
            assert_eq!(rows.len(), model.len());
            check_keys(&rows, &model, &mut random);
            check_ranges(&rows, &model);
        }
        rows.work(usize::MAX).unwrap();
        assert!(rows.runs().count() < 3 * FAN_IN, "{} runs", rows.runs().count());
        check_keys(&rows, &model, &mut random);
        drop(std::mem::replace(&mut rows, spilled(&spill)));
        telling.iter().for_each(check_told);
    }
    assert_eq!(spill.bytes(), 0, "files go with what they are of");
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
}

#[test]
fn what_an_earlier_process_left_is_deleted() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("000000000007.arrow"), b"rows").unwrap();
    SpillFolder::open(folder.path()).unwrap();
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
}
