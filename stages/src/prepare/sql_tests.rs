//! Tests of `sql`: what is understood and in which order, what is read, what is refused, and that threads do not count.

use std::collections::BTreeMap;
use std::process::Command;
use std::sync::Arc;

use polars::prelude::*;
use rand::{Rng, SeedableRng};
use rand_xoshiro::Xoshiro256PlusPlus;

use super::sql::{Config, Sql};
use crate::StageError;
use crate::frame::{self, Schema};
use crate::io::{Bytes, Content, Draft, DraftTree, EntryHead, Inputs, Outputs, Stored};
use crate::kind::{Kind, Selection, artifact};

type Tables = BTreeMap<&'static str, DataFrame>;

fn tables() -> Tables {
    let flights = df!(
        "id" => [1i64, 2, 3, 4, 5, 6],
        "carrier" => ["UA", "AA", "UA", "DL", "AA", "UA"],
        "origin" => [Some("JFK"), Some("LGA"), None, Some("EWR"), Some("JFK"), Some("EWR")],
        "delay" => [Some(5.0f64), Some(-2.5), Some(5.0), None, Some(10.0), Some(0.5)],
        "month" => [1i64, 1, 2, 2, 1, 2],
    );
    let airlines = df!("carrier" => ["UA", "DL", "B6", "UA"], "name" => ["United", "Delta", "JetBlue", "Union"]);
    let days = df!("month" => [1i64, 2, 3], "low" => [0i64, 2, 4], "day" => ["2024-01-15", "2024-02-01", "2024-03-31"]);
    BTreeMap::from([("f", flights.unwrap()), ("a", airlines.unwrap()), ("d", days.unwrap())])
}

fn config(query: &str) -> Result<Config, String> {
    serde_json::from_value(serde_json::json!({ "query": query })).map_err(|error| error.to_string())
}

fn schemas(tables: &Tables) -> BTreeMap<String, Schema> {
    let schema = |frame| Schema::of(&Draft::tree(artifact::FRAME, frame::encode(frame).unwrap())).unwrap();
    tables.iter().map(|(port, frame)| (port.to_string(), schema(frame))).collect()
}

/// What the run is handed: the selected entries alone, of a frame of some length.
struct Narrowed(Draft, u64);

impl Stored for Narrowed {
    fn header(&self) -> &str {
        self.0.header()
    }

    fn entries(&self) -> &[EntryHead] {
        self.0.entries()
    }

    fn length(&self) -> u64 {
        self.1
    }

    fn entry(&self, name: &str) -> Result<Bytes, StageError> {
        self.0.entry(name)
    }

    fn blob(&self) -> Result<Bytes, StageError> {
        self.0.blob()
    }
}

fn narrowed(frame: &DataFrame, selection: &Selection) -> Narrowed {
    let tree = frame::encode(frame).unwrap();
    let length = Draft::tree(artifact::FRAME, tree.clone()).length();
    let mut kept = DraftTree::new(tree.header.clone());
    for (head, bytes) in tree.into_entries() {
        let selected = match selection {
            Selection::All => true,
            Selection::Only(names) => names.contains(&head.name),
        };
        if selected {
            kept.push(head.name, head.type_name, bytes);
        }
    }
    Narrowed(Draft::tree(artifact::FRAME, kept), length)
}

fn run_on(tables: &Tables, query: &str) -> Result<Draft, String> {
    let config = config(query)?;
    let selections = Sql::reads(&config, &schemas(tables));
    let mut inputs = Inputs::default();
    for (port, frame) in tables {
        inputs.add(*port, BTreeMap::new(), Arc::new(narrowed(frame, &selections[*port])));
    }
    let mut outputs = Outputs::default();
    Sql::run(&config, &inputs, &mut outputs).map_err(|error| error.to_string())?;
    Ok(outputs.into_drafts().remove("frame").unwrap())
}

fn error(query: &str) -> String {
    match run_on(&tables(), query) {
        Ok(draft) => panic!("`{query}` gave {}", draft.header()),
        Err(error) => error,
    }
}

/// Columns parted by blanks, rows by ` | `, the names first.
fn show(draft: &Draft) -> String {
    let frame = frame::decode(draft).unwrap();
    let mut rows = vec![Schema::of(draft).unwrap().names().join(" ")];
    for row in 0..frame.height() {
        let cell = |column: &Column| match column.get(row).unwrap() {
            AnyValue::Null => "-".to_string(),
            value => value.str_value().into_owned(),
        };
        rows.push(frame.columns().iter().map(cell).collect::<Vec<_>>().join(" "));
    }
    rows.join(" | ")
}

#[test]
fn numbers_mean_what_they_mean_to_polars() {
    let draft = run_on(&tables(), "select 7 / 2 as half, -7 % 2 as rest from f where id = 1").unwrap();
    assert_eq!(show(&draft), "half rest | 3.5 1");
}

fn digest(draft: Draft) -> String {
    let mut hasher = blake3::Hasher::new();
    hasher.update(draft.header().as_bytes());
    let Content::Tree(tree) = draft.content else { panic!("a frame is a tree") };
    for (head, bytes) in tree.into_entries() {
        hasher.update(format!("{}\0{}\0{}\0", head.name, head.type_name, bytes.len()).as_bytes());
        hasher.update(&bytes);
    }
    hasher.finalize().to_hex().to_string()
}

const CASES: &[(&str, &str)] = &[
    ("select id from f", "id | 1 | 2 | 3 | 4 | 5 | 6"),
    ("select count(*) as n from f", "n | 6"),
    ("select 1 as one from a", "one | 1 | 1 | 1 | 1"),
    (
        "select id, delay * 2 as twice from f where delay is not null",
        "id twice | 1 10.0 | 2 -5.0 | 3 10.0 | 5 20.0 | 6 1.0",
    ),
    (
        "select f.id, a.name from f left join a using (carrier)",
        "id name | 1 United | 1 Union | 2 - | 3 United | 3 Union | 4 Delta | 5 - | 6 United | 6 Union",
    ),
    (
        "select f.id, a.name from f join a on f.carrier = a.carrier",
        "id name | 1 United | 1 Union | 3 United | 3 Union | 4 Delta | 6 United | 6 Union",
    ),
    (
        "select f.id, a.name from f right join a on f.carrier = a.carrier",
        "id name | 1 United | 3 United | 6 United | 4 Delta | - JetBlue | 1 Union | 3 Union | 6 Union",
    ),
    (
        "select f.id, a.name from f full join a on f.carrier = a.carrier",
        "id name | 1 United | 1 Union | 2 - | 3 United | 3 Union | 4 Delta | 5 - | 6 United | 6 Union | - JetBlue",
    ),
    ("select id from f semi join a using (carrier)", "id | 1 | 3 | 4 | 6"),
    ("select id from f anti join a using (carrier)", "id | 2 | 5"),
    ("select f.id, d.low from f cross join d where f.id > 4", "id low | 5 0 | 5 2 | 5 4 | 6 0 | 6 2 | 6 4"),
    ("select f.id, d.low from f join d on f.id <= d.low", "id low | 1 2 | 1 4 | 2 2 | 2 4 | 3 4 | 4 4"),
    (
        "select f.id, a.name from f, a where f.carrier = a.carrier and f.month = 2",
        "id name | 3 United | 3 Union | 4 Delta | 6 United | 6 Union",
    ),
    (
        "select f.id, a.name, d.day from f join a on f.carrier = a.carrier join d on f.month = d.month where f.id < 4",
        "id name day | 1 United 2024-01-15 | 1 Union 2024-01-15 | 3 United 2024-02-01 | 3 Union 2024-02-01",
    ),
    ("select l.id, r.id as other from f l join f r on l.delay = r.delay and l.id < r.id", "id other | 1 3"),
    (
        "select * from f natural join d where id < 3",
        "id carrier origin delay month low day | 1 UA JFK 5.0 1 0 2024-01-15 | 2 AA LGA -2.5 1 0 2024-01-15",
    ),
    (
        "select carrier, count(*) as n, sum(delay) as total from f group by carrier",
        "carrier n total | AA 2 7.5 | DL 1 - | UA 3 10.5",
    ),
    ("select origin, max(id) as id from f group by origin", "origin id | EWR 6 | JFK 5 | LGA 2 | - 3"),
    (
        "select carrier, avg(delay) as mean from f group by carrier having count(*) > 1",
        "carrier mean | AA 3.75 | UA 3.5",
    ),
    ("select month, carrier, count(*) as n from f group by all", "month carrier n | 1 AA 2 | 1 UA 1 | 2 DL 1 | 2 UA 2"),
    ("select count(*) as n from f group by month order by month desc", "n | 3 | 3"),
    ("select distinct carrier from f", "carrier | AA | DL | UA"),
    ("select distinct on (carrier) carrier, id from f order by carrier, id desc", "carrier id | AA 5 | DL 4 | UA 6"),
    ("select carrier from f union select carrier from a", "carrier | AA | B6 | DL | UA"),
    ("select carrier from f where id > 4 union all select carrier from a", "carrier | AA | B6 | DL | UA | UA | UA"),
    ("select carrier from f except select carrier from a", "carrier | AA"),
    ("select carrier from a except select carrier from f intersect select carrier from f", "carrier | B6"),
    ("select carrier from a union select origin from f order by carrier desc nulls last limit 2", "carrier | UA | LGA"),
    ("(select id from f order by id limit 1) union all (select id from f order by id desc limit 2)", "id | 1 | 5 | 6"),
    ("select month, id from f order by month desc", "month id | 2 3 | 2 4 | 2 6 | 1 1 | 1 2 | 1 5"),
    ("select delay, id from f order by 1", "delay id | -2.5 2 | 0.5 6 | 5.0 1 | 5.0 3 | 10.0 5 | - 4"),
    ("select delay, carrier from f order by delay desc nulls last limit 2", "delay carrier | 10.0 AA | 5.0 UA"),
    ("select id from f order by id limit 2 offset 3", "id | 4 | 5"),
    ("select id from f order by month, id fetch first 2 rows only", "id | 1 | 2"),
    ("select month, origin from f order by month limit 2", "month origin | 1 JFK | 1 JFK"),
    ("select x.carrier from (select carrier, delay, id from f order by delay limit 3) x", "carrier | AA | UA | UA"),
    (
        "with late as (select carrier, delay from f where delay > 0) select carrier, count(*) as n from late group by carrier",
        "carrier n | AA 1 | UA 3",
    ),
    (
        "with x as (select month from f), y as (select distinct month from x) select month + 1 as next from y order by next desc",
        "next | 3 | 2",
    ),
    (
        "select id, row_number() over (partition by carrier order by month) as n from f",
        "id n | 1 1 | 2 1 | 3 2 | 4 1 | 5 2 | 6 3",
    ),
    ("select id, rank() over (order by month desc) as r from f", "id r | 1 4 | 2 4 | 3 1 | 4 1 | 5 4 | 6 1"),
    (
        "select id, lag(id) over (partition by carrier order by id) as before from f",
        "id before | 1 - | 2 - | 3 1 | 4 - | 5 2 | 6 3",
    ),
    (
        "select id, first_value(id) over (partition by month order by delay desc) as top from f",
        "id top | 1 5 | 2 5 | 3 3 | 4 3 | 5 5 | 6 3",
    ),
    ("select id, sum(id) over (partition by carrier) as s from f", "id s | 1 10 | 2 7 | 3 10 | 4 4 | 5 7 | 6 10"),
    ("select id, sum(id) over (order by id) as s from f", "id s | 1 1 | 2 3 | 3 6 | 4 10 | 5 15 | 6 21"),
    ("select sum(id) over () as s from f", "s | 21 | 21 | 21 | 21 | 21 | 21"),
    ("select id, id * 100 / sum(id) over () as part from f where month = 1", "id part | 1 12.5 | 2 25.0 | 5 62.5"),
    ("select count(*) over () as n from f where month = 1", "n | 3 | 3 | 3"),
    ("select id from f where origin not in (select a.carrier from a where a.carrier <> 'x')", "id | 1 | 2 | 4 | 5 | 6"),
    (
        "select f.id from f left join (select carrier, count(*) as n from a group by carrier) g on f.carrier = g.carrier where g.n is null",
        "id | 2 | 5",
    ),
    (
        "select a.name from a join f on a.carrier = f.carrier and a.name > f.origin",
        "name | United | United | Union | Union",
    ),
    ("select id from f order by delay * -1 limit 2", "id | 5 | 1"),
    ("select -id as x from f order by x limit 2", "x | -6 | -5"),
    ("select month as m, count(*) as n from f group by 1 order by 2, 1", "m n | 1 3 | 2 3"),
    (
        "select id, case when delay > 4 then 'late' when delay is null then 'none' else 'fine' end as how from f",
        "id how | 1 late | 2 fine | 3 late | 4 none | 5 late | 6 fine",
    ),
    (
        "select cast(delay as int) as whole, id::text || 'x' as tag from f where delay is not null",
        "whole tag | 5 1x | -2 2x | 5 3x | 10 5x | 0 6x",
    ),
    ("select id from f where delay between 0 and 5", "id | 1 | 3 | 6"),
    ("select id from f where carrier in ('UA', 'DL') and origin like '%W_'", "id | 4 | 6"),
    ("select id from f where carrier in (select carrier from a where name like 'D%')", "id | 4"),
    ("select id from f where carrier not in (select carrier from a)", "id | 2 | 5"),
    ("select id from f where exists (select 1 from a where a.carrier = f.carrier)", "id | 1 | 3 | 4 | 6"),
    ("select id from f where not exists (select * from a where a.carrier = f.carrier)", "id | 2 | 5"),
    (
        "select coalesce(origin, '?') as origin, abs(delay) as size from f where id < 4",
        "origin size | JFK 5.0 | LGA 2.5 | ? 5.0",
    ),
    (
        "select extract(year from day::date) as y, day::date + interval '1 month' as later from d",
        "y later | 2024 2024-02-15 | 2024 2024-03-01 | 2024 2024-04-30",
    ),
    (
        "select first(id) as first, last(id) as last, string_agg(distinct carrier, '+') as all_of from f",
        "first last all_of | 1 6 UA+AA+DL",
    ),
    (
        "select month, string_agg(carrier, '+' order by carrier) as all_of from f group by month",
        "month all_of | 1 AA+AA+UA | 2 DL+UA+UA",
    ),
    ("select sum(delay) filter (where month = 1) as s, count(distinct carrier) as n from f", "s n | 12.5 3"),
    (
        "select carrier, id from f where id > 4 union by name select id, carrier from f where id = 1",
        "carrier id | AA 5 | UA 1 | UA 6",
    ),
    ("select * exclude (delay, month) from f where id = 1", "id carrier origin | 1 UA JFK"),
    (
        "select f.*, a.name from f join a on f.carrier = a.carrier where f.id = 4",
        "id carrier origin delay month name | 4 DL EWR - 2 Delta",
    ),
    ("select sum(id) as s, sum(month = 2) as n from f", "s n | 21 3"),
    ("select column_0 + 1 as n from (values (1), (2)) as v", "n | 2 | 3"),
    ("select v.n, v.s from (values (2, 'b'), (1, 'a')) as v (n, s)", "n s | 2 b | 1 a"),
    ("from a", "carrier name | UA United | DL Delta | B6 JetBlue | UA Union"),
];

#[test]
fn queries() {
    let mut bad = Vec::new();
    for (query, expected) in CASES {
        let found = run_on(&tables(), query).map_or_else(|error| format!("ERROR {error}"), |draft| show(&draft));
        if found != *expected {
            bad.push(format!("{query}\n    {found}"));
        }
    }
    assert!(bad.is_empty(), "\n{}", bad.join("\n"));
}

/// Each is refused while the file is read.
#[test]
fn refused_by_the_text() {
    for (query, expected) in [
        ("select id from", "expected identifier, found EOF"),
        ("select id\nfrom f whre id = 1 2", "line 2, column 13: expected end of statement, found id"),
        ("select 'a from f", "line 1, column 8: Unterminated string literal"),
        ("", "there is no statement"),
        ("select 1; select 2", "one statement is expected, 2 are there"),
        ("insert into f values (1)", "`insert` is no query; a stage reads its inputs and gives one table"),
        ("create table x as select 1", "`create` is no query; a stage reads its inputs and gives one table"),
        ("explain select 1", "`explain` is no query; a stage reads its inputs and gives one table"),
        ("show tables", "`show` is no query; a stage reads its inputs and gives one table"),
        ("delete from f", "`delete` is no query; a stage reads its inputs and gives one table"),
        ("drop table f", "`drop` is no query; a stage reads its inputs and gives one table"),
        ("select id from f limit 3", "`limit` without `order by`: which rows are meant is not defined"),
        ("select id from f offset 3", "`limit` without `order by`: which rows are meant is not defined"),
        (
            "select * from (select id from f limit 3) x order by id",
            "`limit` without `order by`: which rows are meant is not defined",
        ),
        ("select id from f fetch first 1 row only", "`limit` without `order by`: which rows are meant is not defined"),
        (
            "select distinct on (month) id from f",
            "`distinct on` without `order by`: which rows are meant is not defined",
        ),
        (
            "select row_number() over () as n from f",
            "`row_number` without `order by` in `over (…)`: which row comes first is not defined",
        ),
        (
            "select lag(id) over (partition by month) as n from f",
            "`lag` without `order by` in `over (…)`: which row comes first is not defined",
        ),
        ("select rank() as n from f", "`rank` needs `over (… order by …)`"),
        (
            "select sum(id) over w as n from f window w as (order by id)",
            "the named window `w` is not understood; write it in `over (…)`",
        ),
        (
            "select lag(id) over (order by id nulls last) as n from f",
            "in `over (…)` null is the smallest value: `nulls first` goes with `asc`, `nulls last` with `desc`",
        ),
        (
            "select random() as r from f",
            "`random` gives another value each time; a stage's result follows from its inputs alone",
        ),
        (
            "select NOW() as r from f",
            "`now` gives another value each time; a stage's result follows from its inputs alone",
        ),
        (
            "select current_date as r from f",
            "`current_date` gives another value each time; a stage's result follows from its inputs alone",
        ),
        ("select * from read_csv('/etc/passwd')", "`read_csv(…)`: a query reads its inputs alone, no table function"),
        (
            "select id from f join (select 1) x on true, lateral read_parquet('x')",
            "`read_parquet(…)`: a query reads its inputs alone, no table function",
        ),
        ("select id from main.f", "`main.f`: a table is called by an input's name, which has one part"),
        ("select id from f, f", "two tables in one `from` are called `f`; give one an alias"),
        ("select t.id from f as t (x)", "`t`: an alias of a table cannot rename its columns"),
        ("select q.id from f", "`q` is neither a table nor an alias of this query"),
        (
            "select f.id from f left join d on f.id > d.low",
            "only an inner join may compare with anything but `=` in `on`",
        ),
        (
            "select f.id from f full join d using (month)",
            "a right or full join takes `on`: after `using` the key would be null where the left side has no row",
        ),
        ("select id from f join d", "a join needs `on` or `using`; write `cross join` for all pairs"),
        ("with recursive x as (select 1 as a) select a from x", "`with recursive` is not understood"),
        ("with x as (select 1 as a), x as (select 2 as a) select a from x", "two tables of the `with` are called `x`"),
        (
            "select a from (with x as (select 1 as a) select a from x) y",
            "`with` is understood at the beginning of the query alone; move it there",
        ),
        (
            "select id from f where id > (select min(low) from d)",
            "a subquery as a value is not understood; join the subquery, or use `in` or `exists`",
        ),
        ("select id from f order by 0", "columns are numbered from 1"),
        (
            "select id, carrier in (select carrier from a) as x from f",
            "a subquery is understood in `from` and, with `in` or `exists`, in `where`",
        ),
        ("select id into x from f", "`select into` is no query; a stage reads its inputs and gives one table"),
    ] {
        let found = config(query).err().unwrap_or_else(|| "none".into());
        assert_eq!(found, format!("query: {expected}"), "{query}");
    }
    assert!(serde_json::from_str::<Config>(r#"{"query": "select 1", "inputs": {}}"#).is_err());
}

/// Each needs the tables.
#[test]
fn refused_by_the_tables() {
    for (query, expected) in [
        ("select id from g", "query: there is no table `g`; the inputs are `a`, `d`, `f`"),
        (
            "with f as (select 1 as id) select id from f",
            "query: `f` is an input; the table of the `with` needs another name",
        ),
        ("select d.id from f as d", "query: the alias `d` is the name of another table"),
        ("select low, nope from d", "query: there is no column `nope`; the columns are `d.month`, `d.low`, `d.day`"),
        ("select x.nope from d as x", "query: there is no column `x.nope`; the columns are `month`, `low`, `day`"),
        (
            "select ID from f",
            "query: there is no column `ID`; the columns are `f.id`, `f.carrier`, `f.origin`, `f.delay`, `f.month`",
        ),
        ("select id, month as id from f", "query: two columns are called `id`; name one of them with `as`"),
        ("select sum(id), max(id) from f", "query: two columns are called `id`; name one of them with `as`"),
        (
            "select carrier from f group by carrier order by max(id) desc",
            "query: the column `id` is not there at that step; select it, or give it an alias, before",
        ),
        ("select id from f where id > 99", "sql: no rows are left"),
        (
            "select carrier + 1 as x from f",
            "query: arithmetic on dtypes str and dyn int is not allowed (lhs: expression `col(\"carrier\")`, rhs: expression `dyn int: 1`); try an explicit cast first",
        ),
        ("select sum(carrier) as x from f", "query: `sum` operation not supported for dtype `str`"),
        (
            "select cast(carrier as int) as x from f",
            "query: conversion from `str` to `i32` failed in column 'carrier' for 6 out of 6 values: [\"UA\", \"AA\", … \"UA\"]",
        ),
        ("select frobnicate(id) as x from f", "query: unsupported function 'frobnicate'"),
        (
            "select month from f join d on f.month = d.month",
            "query: ambiguous reference to column \"month\" (use one of: d.\"month\", f.\"month\")",
        ),
        (
            "select month from d where day not in (select name from a where carrier = d.day)",
            "query: `not in` with a subquery that names the outer table: use `not exists`",
        ),
        (
            "select array_agg(id) as ids from f group by month",
            "column `ids` has the type list[i64], which a frame cannot hold; leave it out or turn it into text or numbers",
        ),
        (
            "select carrier, delay from f group by carrier",
            "query: 'delay' should participate in the GROUP BY clause or an aggregate function",
        ),
        (
            "select carrier, avg(delay) as m from f",
            "query: `carrier` stands beside an aggregate of all rows; write `group by`, or take an aggregate of it too",
        ),
        (
            "select count(*) as n, f.month + 1 as m from f",
            "query: `f.month` stands beside an aggregate of all rows; write `group by`, or take an aggregate of it too",
        ),
        (
            "select *, max(delay) as m from f",
            "query: `*` stands beside an aggregate of all rows; write `group by`, or take an aggregate of it too",
        ),
        (
            "select carrier from f union select carrier, name from a",
            "query: UNION requires equal number of columns in each table (use 'UNION BY NAME' to combine mismatched tables)",
        ),
    ] {
        assert_eq!(error(query), expected, "{query}");
    }
}

fn narrow() -> Tables {
    let narrow = df!(
        "id" => [1i64, 2, 3],
        "byte" => [100i8, 100, 100],
        "word" => [Some(3_000_000_000u32), Some(3_000_000_000), None],
        "int" => [2_000_000_000i32, 2_000_000_000, -1],
        "flag" => [true, false, true],
        "at" => ["2024-01-01 23:59:00", "2024-01-01 12:00:00", "2024-01-01 00:30:00"],
    );
    BTreeMap::from([("t", narrow.unwrap())])
}

#[test]
fn whole_numbers_are_reckoned_with_as_i64() {
    for (query, expected) in [
        ("select count(word) - count(*) as x from t", "x | -1"),
        ("select count(distinct byte) - count(id) as x from t", "x | -2"),
        ("select id, count(*) - 3 as x from t group by id", "id x | 1 -2 | 2 -2 | 3 -2"),
        ("select sum(flag) - 3 as x from t", "x | -1"),
        ("select count(*) filter (where flag) - 3 as x from t", "x | -1"),
        ("select sum(word) as x from t", "x | 6000000000"),
        ("select sum(int) as x, sum(byte) as y from t", "x y | 3999999999 300"),
        ("select flag, sum(int) as x from t group by flag", "flag x | false 2000000000 | true 1999999999"),
        ("select id, sum(int) over (order by id) as x from t", "id x | 1 2000000000 | 2 4000000000 | 3 3999999999"),
        ("select sum(word) over (partition by byte) as x from t", "x | 6000000000 | 6000000000 | 6000000000"),
        ("select id, row_number() over (order by id) - 3 as x from t", "id x | 1 -2 | 2 -1 | 3 0"),
        ("select id, rank() over (order by id) - 3 as x from t", "id x | 1 -2 | 2 -1 | 3 0"),
        ("select count(id) over (order by id) - 3 as x from t", "x | -2 | -1 | 0"),
        ("select byte * 100 as x, int + int as y from t where id = 1", "x y | 10000 4000000000"),
        ("select id - word as x, -byte as y from t where id = 1", "x y | -2999999999 -100"),
        ("select word - 4000000000 as x from t where id < 2", "x | -1000000000"),
        (
            "select extract(hour from at) * 60 + extract(minute from at) as x from (select strptime(at, '%Y-%m-%d %H:%M:%S') as at from t) u",
            "x | 1439 | 720 | 30",
        ),
        ("select length(at) - 20 as x from t where id = 1", "x | -1"),
        ("select id from t where word - 3000000001 < 0 order by byte * 2, id desc", "id | 2 | 1"),
        ("select 2000000000 * 4 as x from t where id = 1", "x | 8000000000"),
        ("select power(int, 2) as x from t where id = 1", "x | 4000000000000000000"),
    ] {
        let found = run_on(&narrow(), query).map_or_else(|error| format!("ERROR {error}"), |draft| show(&draft));
        assert_eq!(found, expected, "{query}");
    }
}

#[test]
fn a_sum_of_a_constant_counts_every_row() {
    for (query, expected) in [
        ("select sum(1) as x from t", "x | 3"),
        ("select sum(0.5) as x from t", "x | 1.5"),
        ("select flag, sum(2) as x from t group by flag", "flag x | false 2 | true 4"),
        ("select id, sum(1) over (partition by flag) as x from t", "id x | 1 2 | 2 1 | 3 2"),
    ] {
        let found = run_on(&narrow(), query).map_or_else(|error| format!("ERROR {error}"), |draft| show(&draft));
        assert_eq!(found, expected, "{query}");
    }
}

#[test]
fn counts_and_sums_of_whole_numbers_are_i64_columns() {
    let query =
        "select count(*) as a, count(word) as b, count(distinct id) as c, sum(flag) as d, sum(word) as e from t";
    let schema = Schema::of(&run_on(&narrow(), query).unwrap()).unwrap();
    assert!(schema.columns.iter().all(|column| column.type_name == "i64"), "{schema:?}");
    let windows = "select row_number() over (order by id) as a, rank() over (order by id) as b, \
                   count(*) over (partition by flag) as c, count(word) over (order by id) as d from t";
    let schema = Schema::of(&run_on(&narrow(), windows).unwrap()).unwrap();
    assert!(schema.columns.iter().all(|column| column.type_name == "i64"), "{schema:?}");
}

#[test]
fn a_number_beyond_i64_is_refused_where_it_is_reckoned_with() {
    let tables = BTreeMap::from([("t", df!("big" => [u64::MAX]).unwrap())]);
    assert_eq!(show(&run_on(&tables, "select big from t").unwrap()), "big | 18446744073709551615");
    for query in ["select sum(big) as x from t", "select big - 1 as x from t"] {
        let error = run_on(&tables, query).unwrap_err();
        assert!(error.starts_with("query: conversion from `u64` to `i64` failed"), "{error}");
    }
}

#[test]
fn a_query_is_the_same_tree_when_its_print_is_read_again() {
    for (query, _) in CASES {
        let config = config(query).unwrap();
        let again = super::sql_text::SqlText::try_from(config.query.to_string()).unwrap();
        assert!(again.query() == config.query.query(), "{query}");
    }
}

#[test]
fn comments_and_white_space_do_not_count() {
    let canonical = |query: &str| serde_json::to_string(&config(query).unwrap()).unwrap();
    let plain = canonical("select id, delay from f where id > 1");
    assert_eq!(plain, r#"{"query":"SELECT id, delay FROM f WHERE id > 1"}"#);
    assert_eq!(canonical("SELECT id,\n  delay, -- the delay\nFROM f /* all */ WHERE id>1;"), plain);
    assert_ne!(canonical("select ID, delay from f where id > 1"), plain);
    for (query, _) in CASES {
        let once = config(query).unwrap().query.to_string();
        assert_eq!(config(&once).unwrap().query.to_string(), once);
    }
}

#[test]
fn reads_what_it_names() {
    let only = |names: &[&str]| Selection::Only(names.iter().map(|name| name.to_string()).collect());
    let none = || only(&[]);
    for (query, a, d, f) in [
        ("select id from f", none(), none(), only(&["id"])),
        ("select count(*) as n from f", none(), none(), none()),
        ("select sum(delay) filter (where month = 1) as s from f", none(), none(), only(&["delay", "month"])),
        ("select * from f", none(), none(), Selection::All),
        (
            "select x.*, a.name from f x join a on x.carrier = a.carrier",
            only(&["carrier", "name"]),
            none(),
            Selection::All,
        ),
        (
            "select f.id, a.name from f join a using (carrier)",
            only(&["carrier", "name"]),
            none(),
            only(&["carrier", "id"]),
        ),
        ("select id from f natural join d", none(), Selection::All, Selection::All),
        ("with x as (select id, month from f) select * from x order by month", none(), none(), only(&["id", "month"])),
        ("select columns('i.*') from f", Selection::All, Selection::All, Selection::All),
        ("select \"^i.*$\" from f", Selection::All, Selection::All, Selection::All),
        (
            "select id from f where exists (select * from a where a.carrier = f.carrier)",
            Selection::All,
            none(),
            only(&["carrier", "id"]),
        ),
        ("select nope from f", Selection::All, Selection::All, Selection::All),
        ("select name from f", Selection::All, Selection::All, Selection::All),
        ("from d", none(), Selection::All, none()),
    ] {
        let found = Sql::reads(&config(query).unwrap(), &schemas(&tables()));
        let expected = [("a", a), ("d", d), ("f", f)].map(|(port, selection)| (port.to_string(), selection));
        assert_eq!(found, BTreeMap::from(expected), "{query}");
    }
}

#[test]
fn an_unread_column_cannot_matter() {
    let mut changed = tables();
    let flights = changed.get_mut("f").unwrap();
    flights.with_column(Column::new("delay".into(), ["x", "y", "z", "x", "y", "z"])).unwrap();
    flights.with_column(Column::new("more".into(), [1i64; 6])).unwrap();
    for query in ["select id, origin from f", "select carrier, count(*) as n from f group by carrier"] {
        assert_eq!(digest(run_on(&tables(), query).unwrap()), digest(run_on(&changed, query).unwrap()), "{query}");
    }
}

#[test]
fn equal_keys_of_a_window_keep_the_order_of_rows() {
    let rows: Vec<i64> = (0..2000).collect();
    let tables = BTreeMap::from([("t", df!("id" => &rows, "key" => vec![7i64; 2000]).unwrap())]);
    for direction in ["asc", "desc"] {
        let query = format!("select row_number() over (order by key {direction}) as n from t");
        let found = frame::decode(&run_on(&tables, &query).unwrap()).unwrap();
        let numbers: Vec<i64> =
            found.columns()[0].cast(&DataType::Int64).unwrap().i64().unwrap().into_no_null_iter().collect();
        assert!(numbers.iter().zip(&rows).all(|(number, row)| *number == row + 1), "{direction}");
    }
}

/// Fails when the result for an unchanged input changes: raise `Sql::VERSION` with it.
#[test]
fn golden_digests() {
    let found: Vec<String> = GOLDEN.iter().map(|(query, _)| digest(run_on(&tables(), query).unwrap())).collect();
    let expected: Vec<&str> = GOLDEN.iter().map(|(_, digest)| *digest).collect();
    assert_eq!(found, expected);
}

const GOLDEN: [(&str, &str); 4] = [
    ("select * from f", "808ce7007769717d8f128909a004735c1fd3059f3700a34b7edffad7d859bef5"),
    (
        "select f.id, a.name, f.delay / 3 as third from f left join a on f.carrier = a.carrier",
        "3aeff1df4403dcaeb565e9da4ab4a7dea81071de5944bda825ff6a82e003483c",
    ),
    (
        "select carrier, count(*) as n, avg(delay) as mean, stddev(delay) as spread from f group by carrier",
        "007da5934ba9e637018ab9d5784a96b0bbfc02da150d698af3f0de772086f09c",
    ),
    (
        "select id, lag(delay) over (partition by carrier order by month, id) as before from f order by month, id",
        "faba7d23608397119317bb5f71963e544c3609268fc13057ca0fba86e9c722e8",
    ),
];

const THREADED: [&str; 16] = [
    "select g, sum(x) as s, avg(x) as m, stddev(x) as d, count(*) as n from t group by g",
    "select sum(x) as s, avg(x) as m, var(x) as v from t where y > 0.1",
    "select sum(x * y) as s from (select x, y from t where y > 0.3 union all select x, y from t where g < 3) u",
    "select k.label, sum(t.x) as s from t join k on t.g = k.g where t.y > 0.2 group by k.label",
    "select t.id, t.x, k.label from t left join k on t.g = k.g",
    "select t.id, t.x, k.label from t join k on t.g = k.g and t.h = k.h",
    "select t.id, k.label from t full join k on t.g = k.g",
    "select sum(l.x * r.x) as s from t l join t r on l.id = r.h",
    "select sum(t.x) as s from t join b on t.y > b.low and t.y <= b.high",
    "select t.id, b.low from t join b on t.y > b.low and t.y <= b.high",
    "select distinct g, h from t",
    "select h, max(x) as x from t group by h order by x desc limit 100",
    "select g from t union select g from k",
    "select id, sum(x) over (partition by g) as s, sum(x) over (partition by h order by y) as c from t",
    "select id, row_number() over (partition by g order by h) as n, rank() over (order by h) as r from t",
    "select h, string_agg(distinct name, '+') as all_of, first(x) as f from t where y > 0.5 group by h",
];

fn random_tables() -> Tables {
    let mut random = Xoshiro256PlusPlus::seed_from_u64(7);
    let rows = 50_000i64;
    let mut floats = || (0..rows).map(|_| random.gen_range(-1e6..1e6) / 7.0).collect::<Vec<f64>>();
    let (x, y) = (floats(), floats().iter().map(|y| (y * 7.0 / 1e6).abs()).collect::<Vec<f64>>());
    let mut below = |end: i64| (0..rows).map(|_| random.gen_range(0..end)).collect::<Vec<i64>>();
    let (g, h) = (below(20), below(700));
    let names: Vec<String> = below(9).iter().map(|name| format!("name {name}")).collect();
    let t = df!("id" => (0..rows).collect::<Vec<_>>(), "x" => x, "y" => y, "g" => g, "h" => h, "name" => names);
    let k =
        df!("g" => [3i64, 1, 3, 30, 5, 19], "h" => [3i64, 1, 4, 1, 5, 9], "label" => ["c", "a", "C", "z", "e", "c"]);
    let b = df!("low" => [0.5f64, 0.0, 0.4], "high" => [0.9f64, 0.45, 0.6]);
    BTreeMap::from([("t", t.unwrap()), ("k", k.unwrap()), ("b", b.unwrap())])
}

/// Runs itself in a process for each number of threads, since polars reads that once.
#[test]
fn threads_do_not_count() {
    const CHILD: &str = "HEADWATER_SQL_CHILD";
    if std::env::var_os(CHILD).is_some() {
        let tables = random_tables();
        for query in THREADED {
            println!("digest {} {query}", digest(run_on(&tables, query).unwrap()));
        }
        return;
    }
    let run = |threads: &str| {
        let mut child = Command::new(std::env::current_exe().unwrap());
        child.args(["--exact", "prepare::sql_tests::threads_do_not_count", "--nocapture"]);
        let output = child.env(CHILD, "1").env("POLARS_MAX_THREADS", threads).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let text = String::from_utf8(output.stdout).unwrap();
        text.lines().filter(|line| line.contains("digest ")).map(String::from).collect::<Vec<_>>()
    };
    let one = run("1");
    assert_eq!(one.len(), THREADED.len());
    for threads in ["2", "2", "5"] {
        assert_eq!(one, run(threads), "{threads} threads");
    }
}
