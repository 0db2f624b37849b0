//! The text of a query: parsed, held to the rules that the text alone decides, and printed in one form.
//!
//! Parsed with the dialect and options of polars-sql, so that both see the same tree. This file knows no tables and no
//! data. It does not trust polars-sql to notice what it does not understand: a clause that polars-sql would ignore, or
//! answer otherwise than SQL does, is refused here.
//!
//! Invariants: a [`SqlText`] is one query that has passed every rule; its printed form parses to the same tree, so comments,
//! white space and trailing commas do not count.

use std::collections::BTreeSet;
use std::fmt;
use std::ops::ControlFlow;

use serde::{Deserialize, Serialize};
use sqlparser::ast::{
    BinaryOperator, Cte, Distinct, Expr, Function, FunctionArguments, GroupByExpr, Join, JoinConstraint, JoinOperator,
    ObjectName, OrderBy, OrderByExpr, OrderByKind, Query, Select, SelectItem, SetExpr, Statement, TableAlias,
    TableFactor, TableWithJoins, Value, Visit, VisitMut, Visitor, VisitorMut, WindowType,
};
use sqlparser::dialect::GenericDialect;
use sqlparser::parser::{Parser, ParserOptions};

use crate::StageError;

/// Their value depends on when or where they are called.
const NOT_A_FUNCTION_OF_ITS_ARGUMENTS: [&str; 26] = [
    "clock_timestamp",
    "current_date",
    "current_time",
    "current_timestamp",
    "current_user",
    "gen_random_uuid",
    "generate_uuid",
    "getdate",
    "getutcdate",
    "localtime",
    "localtimestamp",
    "newid",
    "now",
    "rand",
    "randn",
    "random",
    "random_uuid",
    "session_user",
    "setseed",
    "statement_timestamp",
    "sysdate",
    "timeofday",
    "today",
    "transaction_timestamp",
    "uuid",
    "uuid_generate_v4",
];

/// Their value depends on the order of the rows.
const NEEDS_WINDOW_ORDER: [&str; 11] = [
    "cume_dist",
    "dense_rank",
    "first_value",
    "lag",
    "last_value",
    "lead",
    "nth_value",
    "ntile",
    "percent_rank",
    "rank",
    "row_number",
];

/// Each makes one value of many rows.
const AGGREGATES: [&str; 26] = [
    "array_agg",
    "avg",
    "corr",
    "count",
    "covar",
    "covar_pop",
    "covar_samp",
    "first",
    "group_concat",
    "last",
    "listagg",
    "max",
    "median",
    "min",
    "quantile_cont",
    "quantile_disc",
    "stddev",
    "stddev_samp",
    "stdev",
    "stdev_samp",
    "string_agg",
    "sum",
    "total",
    "var",
    "var_samp",
    "variance",
];

/// Names a set operation while it is selected from; a user's alias cannot hold a colon by accident.
const SET_ALIAS: &str = "headwater:set";

/// One query, in its printed form.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct SqlText {
    query: Query,
}

impl TryFrom<String> for SqlText {
    type Error = StageError;

    fn try_from(text: String) -> Result<Self, StageError> {
        let query = parse(&text)?;
        let printed = query.to_string();
        if parse(&printed)? != query {
            return Err(refused("the parser does not print this query faithfully; write it another way"));
        }
        check(&query)?;
        Ok(Self { query })
    }
}

impl From<SqlText> for String {
    fn from(text: SqlText) -> Self {
        text.to_string()
    }
}

impl fmt::Display for SqlText {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.query.fmt(formatter)
    }
}

impl SqlText {
    /// The syntax tree.
    pub fn query(&self) -> &Query {
        &self.query
    }

    /// The query in the form in which polars-sql treats it as SQL means it: every operand of a set operation stands in
    /// parentheses, and what has its own `order by` or `limit` is a select.
    ///
    /// # Errors
    /// Only if the parser does not read what it prints.
    pub fn for_polars(&self) -> Result<String, StageError> {
        let mut query = self.query.clone();
        match VisitMut::visit(&mut query, &mut Rewriter) {
            ControlFlow::Break(error) => Err(*error),
            ControlFlow::Continue(()) => Ok(query.to_string()),
        }
    }

    /// Whether the result has no order of its own, so that it is sorted by all its columns: something in the query
    /// groups, drops duplicates or combines sets, and the top level has no `order by`.
    pub fn is_unordered(&self) -> bool {
        self.query.order_by.is_none() && self.query.visit(&mut Unordered { sets_alone: false }).is_break()
    }

    /// Whether a `union`, `intersect` or `except` stands anywhere in the query.
    pub fn has_set_operation(&self) -> bool {
        self.query.visit(&mut Unordered { sets_alone: true }).is_break()
    }
}

/// A rule that the query breaks.
pub fn refused(fact: impl fmt::Display) -> StageError {
    StageError::Config { detail: format!("query: {fact}") }
}

fn parse(text: &str) -> Result<Query, StageError> {
    let options = ParserOptions { trailing_commas: true, ..ParserOptions::default() };
    let parser = Parser::new(&GenericDialect).with_options(options);
    let statements = parser.try_with_sql(text).and_then(|mut parser| parser.parse_statements());
    let mut statements = statements.map_err(|error| refused(located(&error.to_string())))?;
    match (statements.pop(), statements.len()) {
        (Some(Statement::Query(query)), 0) => Ok(*query),
        (Some(other), 0) => Err(refused(not_a_query(&other))),
        (None, _) => Err(refused("there is no statement")),
        (Some(_), before) => Err(refused(format!("one statement is expected, {} are there", before + 1))),
    }
}

fn not_a_query(statement: &Statement) -> String {
    let printed = statement.to_string();
    let word = printed.split_whitespace().next().unwrap_or_default().to_lowercase();
    format!("`{word}` is no query; a stage reads its inputs and gives one table")
}

/// `sql parser error: Expected: …, found: … at Line: 1, Column: 8`, with the place in front.
fn located(message: &str) -> String {
    let message = message.strip_prefix("sql parser error: ").unwrap_or(message);
    let message = message.replace("Expected: ", "expected ").replace(", found: ", ", found ");
    let Some((fact, place)) = message.rsplit_once(" at Line: ") else {
        return message;
    };
    format!("line {}: {fact}", place.replace("Column: ", "column "))
}

fn check(query: &Query) -> Result<(), StageError> {
    let mut rules = Rules::default();
    if let ControlFlow::Break(fact) = query.visit(&mut rules) {
        return Err(refused(fact));
    }
    if rules.withs > leading_withs(query) {
        return Err(refused("`with` is understood at the beginning of the query alone; move it there"));
    }
    let mut relations = Relations::default();
    let _ = query.visit(&mut relations);
    match rules.qualifiers.difference(&relations.names).next() {
        Some(name) => Err(refused(format!("`{name}` is neither a table nor an alias of this query"))),
        None => Ok(()),
    }
}

/// How many `with` clauses stand where polars-sql looks for them: at the top and at the top of a table in a `with`.
fn leading_withs(query: &Query) -> usize {
    let tables = query.with.iter().flat_map(|with| &with.cte_tables);
    usize::from(query.with.is_some()) + tables.map(|table| leading_withs(&table.query)).sum::<usize>()
}

/// The names by which tables are called.
#[derive(Debug, Default)]
pub struct Relations {
    /// Every name or alias of a table.
    pub names: BTreeSet<String>,
    /// Names of stored tables and of tables in a `with`.
    pub tables: BTreeSet<String>,
    /// Tables that a `with` defines.
    pub with: BTreeSet<String>,
    /// Aliases, with the stored table that they stand for, if it is one.
    pub aliases: BTreeSet<(String, Option<String>)>,
}

impl Relations {
    /// Collects from a whole query.
    pub fn of(query: &Query) -> Self {
        let mut relations = Self::default();
        let _ = query.visit(&mut relations);
        relations
    }

    fn alias(&mut self, alias: &TableAlias, table: Option<String>) {
        self.names.insert(alias.name.value.clone());
        self.aliases.insert((alias.name.value.clone(), table));
    }

    fn bare_tables(&mut self, body: &SetExpr) {
        match body {
            SetExpr::Table(table) => self.tables.extend(table.table_name.clone()),
            SetExpr::SetOperation { left, right, .. } => {
                self.bare_tables(left);
                self.bare_tables(right);
            }
            _ => {}
        }
    }
}

impl Visitor for Relations {
    type Break = ();

    fn pre_visit_query(&mut self, query: &Query) -> ControlFlow<()> {
        let tables = query.with.iter().flat_map(|with| &with.cte_tables);
        self.with.extend(tables.map(|table| table.alias.name.value.clone()));
        self.bare_tables(&query.body);
        ControlFlow::Continue(())
    }

    fn pre_visit_table_factor(&mut self, factor: &TableFactor) -> ControlFlow<()> {
        match factor {
            TableFactor::Table { name, alias, .. } => {
                let table = last_part(name);
                self.tables.insert(table.clone());
                match alias {
                    Some(alias) => self.alias(alias, Some(table)),
                    None => drop(self.names.insert(table)),
                }
            }
            TableFactor::Derived { alias: Some(alias), .. }
            | TableFactor::UNNEST { alias: Some(alias), .. }
            | TableFactor::NestedJoin { alias: Some(alias), .. } => self.alias(alias, None),
            _ => {}
        }
        ControlFlow::Continue(())
    }
}

/// The last part of a dotted name, as it is written.
pub fn last_part(name: &ObjectName) -> String {
    name.0.last().and_then(|part| part.as_ident()).map(|ident| ident.value.clone()).unwrap_or_default()
}

/// Breaks at the first thing that leaves the rows without an order.
struct Unordered {
    sets_alone: bool,
}

impl Visitor for Unordered {
    type Break = ();

    fn pre_visit_query(&mut self, query: &Query) -> ControlFlow<()> {
        match &*query.body {
            SetExpr::SetOperation { .. } => ControlFlow::Break(()),
            _ => ControlFlow::Continue(()),
        }
    }

    fn pre_visit_select(&mut self, select: &Select) -> ControlFlow<()> {
        let groups = match &select.group_by {
            GroupByExpr::All(_) => true,
            GroupByExpr::Expressions(keys, _) => !keys.is_empty(),
        };
        let distinct = matches!(select.distinct, Some(Distinct::Distinct | Distinct::On(_)));
        if !self.sets_alone && (groups || distinct) { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    }
}

/// Breaks at the first rule that does not hold.
#[derive(Default)]
struct Rules {
    withs: usize,
    qualifiers: BTreeSet<String>,
}

type Verdict = ControlFlow<String>;

fn no(fact: impl Into<String>) -> Verdict {
    ControlFlow::Break(fact.into())
}

const YES: Verdict = ControlFlow::Continue(());

impl Visitor for Rules {
    type Break = String;

    fn pre_visit_query(&mut self, query: &Query) -> Verdict {
        self.withs += usize::from(query.with.is_some());
        with_rules(query)?;
        body_rules(&query.body)?;
        if let Some(order) = &query.order_by {
            order_rules(order)?;
        }
        let has_order = query.order_by.is_some();
        if !has_order && (query.limit_clause.is_some() || query.fetch.is_some()) {
            return no("`limit` without `order by`: which rows are meant is not defined");
        }
        let distinct = query.body.as_select().and_then(|select| select.distinct.as_ref());
        if !has_order && matches!(distinct, Some(Distinct::On(_))) {
            return no("`distinct on` without `order by`: which rows are meant is not defined");
        }
        YES
    }

    fn pre_visit_select(&mut self, select: &Select) -> Verdict {
        if let Some(window) = select.named_window.first() {
            return no(format!("the named window `{}` is not understood; write it in `over (…)`", window.0));
        }
        if select.into.is_some() {
            return no("`select into` is no query; a stage reads its inputs and gives one table");
        }
        if has_stray_subquery(select) {
            return no("a subquery is understood in `from` and, with `in` or `exists`, in `where`");
        }
        if let GroupByExpr::Expressions(keys, _) = &select.group_by
            && keys.iter().any(is_zero)
        {
            return no("columns are numbered from 1");
        }
        if matches!(&select.group_by, GroupByExpr::Expressions(keys, _) if keys.is_empty()) {
            aggregate_rules(select)?;
        }
        let mut names = BTreeSet::new();
        select.from.iter().try_for_each(|table| from_rules(table, &mut names))
    }

    fn pre_visit_table_factor(&mut self, factor: &TableFactor) -> Verdict {
        table_rules(factor)
    }

    fn pre_visit_expr(&mut self, expr: &Expr) -> Verdict {
        match expr {
            Expr::Function(function) => function_rules(function),
            Expr::Subquery(_) => {
                no("a subquery as a value is not understood; join the subquery, or use `in` or `exists`")
            }
            Expr::CompoundIdentifier(parts) => {
                self.qualifiers.extend(parts.first().map(|ident| ident.value.clone()));
                YES
            }
            _ => YES,
        }
    }
}

/// Of all rows together an aggregate gives one value, and a column many: polars-sql would give each row the same value.
fn aggregate_rules(select: &Select) -> Verdict {
    let mut columns = Columns::default();
    let _ = select.projection.visit(&mut columns);
    let all = select
        .projection
        .iter()
        .find(|item| matches!(item, SelectItem::Wildcard(_) | SelectItem::QualifiedWildcard(..)));
    match columns.beside.or_else(|| all.map(ToString::to_string)) {
        Some(column) if columns.has_aggregate => no(format!(
            "`{column}` stands beside an aggregate of all rows; write `group by`, or take an aggregate of it too"
        )),
        _ => YES,
    }
}

/// The columns of a selection outside of aggregates.
#[derive(Default)]
struct Columns {
    within: usize,
    has_aggregate: bool,
    beside: Option<String>,
}

impl Visitor for Columns {
    type Break = ();

    fn pre_visit_expr(&mut self, expr: &Expr) -> ControlFlow<()> {
        match expr {
            _ if is_aggregate(expr) => {
                self.within += 1;
                self.has_aggregate = true;
            }
            Expr::Identifier(_) | Expr::CompoundIdentifier(_) if self.within == 0 => {
                self.beside.get_or_insert_with(|| expr.to_string());
            }
            _ => {}
        }
        ControlFlow::Continue(())
    }

    fn post_visit_expr(&mut self, expr: &Expr) -> ControlFlow<()> {
        self.within -= usize::from(is_aggregate(expr));
        ControlFlow::Continue(())
    }
}

fn is_aggregate(expr: &Expr) -> bool {
    let Expr::Function(function) = expr else { return false };
    function.over.is_none() && AGGREGATES.contains(&function.name.to_string().to_lowercase().as_str())
}

struct Subquery;

impl Visitor for Subquery {
    type Break = ();

    fn pre_visit_expr(&mut self, expr: &Expr) -> ControlFlow<()> {
        match expr {
            Expr::InSubquery { .. } | Expr::Exists { .. } => ControlFlow::Break(()),
            _ => ControlFlow::Continue(()),
        }
    }
}

fn has_stray_subquery(select: &Select) -> bool {
    let found = |part: ControlFlow<()>| part.is_break();
    found(select.projection.visit(&mut Subquery))
        || found(select.group_by.visit(&mut Subquery))
        || found(select.having.visit(&mut Subquery))
        || found(select.qualify.visit(&mut Subquery))
}

fn is_zero(key: &Expr) -> bool {
    matches!(key, Expr::Value(value) if matches!(&value.value, Value::Number(number, _) if number == "0"))
}

fn with_rules(query: &Query) -> Verdict {
    let Some(with) = &query.with else {
        return YES;
    };
    if with.recursive {
        return no("`with recursive` is not understood");
    }
    let mut names = BTreeSet::new();
    match with.cte_tables.iter().find(|Cte { alias, .. }| !names.insert(&alias.name.value)) {
        Some(table) => no(format!("two tables of the `with` are called `{}`", table.alias.name.value)),
        None => YES,
    }
}

fn body_rules(body: &SetExpr) -> Verdict {
    match body {
        SetExpr::Insert(statement)
        | SetExpr::Update(statement)
        | SetExpr::Delete(statement)
        | SetExpr::Merge(statement) => no(not_a_query(statement)),
        SetExpr::SetOperation { left, right, .. } => {
            body_rules(left)?;
            body_rules(right)
        }
        SetExpr::Table(table) if table.schema_name.is_some() => {
            no(format!("`{table}`: a table is called by an input's name, which has one part"))
        }
        _ => YES,
    }
}

fn order_rules(order: &OrderBy) -> Verdict {
    if order.interpolate.is_some() {
        return no("`interpolate` is not understood");
    }
    match &order.kind {
        OrderByKind::Expressions(keys) if keys.iter().any(|key| key.with_fill.is_some()) => {
            no("`with fill` is not understood")
        }
        OrderByKind::Expressions(keys) if keys.iter().any(|key| is_zero(&key.expr)) => {
            no("columns are numbered from 1")
        }
        _ => YES,
    }
}

/// Two tables of one name in one `from` cannot be told apart; polars-sql takes one of them.
fn from_rules(table: &TableWithJoins, names: &mut BTreeSet<String>) -> Verdict {
    own_name(&table.relation, names)?;
    for join in &table.joins {
        own_name(&join.relation, names)?;
        join_rules(join)?;
    }
    YES
}

fn own_name(factor: &TableFactor, names: &mut BTreeSet<String>) -> Verdict {
    let name = match factor {
        TableFactor::Table { alias: Some(alias), .. } | TableFactor::Derived { alias: Some(alias), .. } => {
            alias.name.value.clone()
        }
        TableFactor::Table { name, .. } => last_part(name),
        TableFactor::NestedJoin { table_with_joins, .. } => return from_rules(table_with_joins, names),
        _ => return YES,
    };
    if names.insert(name.clone()) {
        YES
    } else {
        no(format!("two tables in one `from` are called `{name}`; give one an alias"))
    }
}

fn join_rules(join: &Join) -> Verdict {
    use JoinOperator as J;
    let (constraint, outer_right, inner) = match &join.join_operator {
        J::Join(constraint) | J::Inner(constraint) => (constraint, false, true),
        J::Right(constraint) | J::RightOuter(constraint) | J::FullOuter(constraint) => (constraint, true, false),
        J::Left(constraint)
        | J::LeftOuter(constraint)
        | J::Semi(constraint)
        | J::LeftSemi(constraint)
        | J::RightSemi(constraint)
        | J::Anti(constraint)
        | J::LeftAnti(constraint)
        | J::RightAnti(constraint) => (constraint, false, false),
        J::CrossJoin(_) => return YES,
        _ => return no("this kind of join is not understood"),
    };
    match constraint {
        JoinConstraint::On(condition) if !inner && has_inequality(condition) => {
            no("only an inner join may compare with anything but `=` in `on`")
        }
        JoinConstraint::Using(_) if outer_right => {
            no("a right or full join takes `on`: after `using` the key would be null where the left side has no row")
        }
        JoinConstraint::None => no("a join needs `on` or `using`; write `cross join` for all pairs"),
        _ => YES,
    }
}

fn has_inequality(condition: &Expr) -> bool {
    use BinaryOperator::{And, Gt, GtEq, Lt, LtEq, NotEq};
    match condition {
        Expr::Nested(inner) => has_inequality(inner),
        Expr::BinaryOp { left, op: And, right } => has_inequality(left) || has_inequality(right),
        Expr::BinaryOp { op, .. } => matches!(op, Gt | GtEq | Lt | LtEq | NotEq),
        _ => false,
    }
}

fn table_rules(factor: &TableFactor) -> Verdict {
    match factor {
        TableFactor::Table { name, args: Some(_), .. } => {
            no(format!("`{name}(…)`: a query reads its inputs alone, no table function"))
        }
        TableFactor::Table { name, alias, .. } => {
            if name.0.len() != 1 {
                return no(format!("`{name}`: a table is called by an input's name, which has one part"));
            }
            match alias {
                Some(alias) if !alias.columns.is_empty() => {
                    no(format!("`{}`: an alias of a table cannot rename its columns", alias.name))
                }
                _ => YES,
            }
        }
        TableFactor::NestedJoin { alias: Some(alias), .. } => {
            no(format!("`{}`: joins in parentheses cannot have an alias; use a subquery", alias.name))
        }
        TableFactor::Derived { .. } | TableFactor::UNNEST { .. } | TableFactor::NestedJoin { .. } => YES,
        TableFactor::TableFunction { expr, .. } => {
            no(format!("`{expr}`: a query reads its inputs alone, no table function"))
        }
        TableFactor::Function { name, .. } => {
            no(format!("`{name}(…)`: a query reads its inputs alone, no table function"))
        }
        other => no(format!("`{other}` is not understood in `from`")),
    }
}

fn function_rules(function: &Function) -> Verdict {
    let name = function.name.to_string().to_lowercase();
    if NOT_A_FUNCTION_OF_ITS_ARGUMENTS.contains(&name.as_str()) {
        return no(format!("`{name}` gives another value each time; a stage's result follows from its inputs alone"));
    }
    if !matches!(function.parameters, FunctionArguments::None) {
        return no(format!("`{name}`: parameters before the arguments are not understood"));
    }
    let needs_order = NEEDS_WINDOW_ORDER.contains(&name.as_str());
    let window = match &function.over {
        None if needs_order => return no(format!("`{name}` needs `over (… order by …)`")),
        None => return YES,
        Some(WindowType::NamedWindow(window)) => {
            return no(format!("the named window `{window}` is not understood; write it in `over (…)`"));
        }
        Some(WindowType::WindowSpec(window)) => window,
    };
    if let Some(base) = &window.window_name {
        return no(format!("the named window `{base}` is not understood; write it in `over (…)`"));
    }
    if needs_order && window.order_by.is_empty() {
        return no(format!("`{name}` without `order by` in `over (…)`: which row comes first is not defined"));
    }
    let smallest = |key: &OrderByExpr| match key.options.nulls_first {
        Some(first) => first == key.options.asc.unwrap_or(true),
        None => true,
    };
    if !window.order_by.iter().all(smallest) {
        return no("in `over (…)` null is the smallest value: `nulls first` goes with `asc`, `nulls last` with `desc`");
    }
    YES
}

struct Rewriter;

impl VisitorMut for Rewriter {
    type Break = Box<StageError>;

    fn post_visit_query(&mut self, query: &mut Query) -> ControlFlow<Box<StageError>> {
        match rewrite(query) {
            Ok(()) => ControlFlow::Continue(()),
            Err(error) => ControlFlow::Break(Box::new(error)),
        }
    }

    /// polars-sql takes an aggregate over everything for one that leaves a single row.
    fn post_visit_expr(&mut self, expr: &mut Expr) -> ControlFlow<Box<StageError>> {
        if let Expr::Function(Function { over: Some(WindowType::WindowSpec(window)), .. }) = expr
            && window.partition_by.is_empty()
            && window.order_by.is_empty()
        {
            window.partition_by.push(Expr::Value(Value::Boolean(true).with_empty_span()));
        }
        ControlFlow::Continue(())
    }
}

/// polars-sql hands the clauses of a query down to both operands of a set operation, and takes a nested set operation
/// for one of the outer kind.
fn rewrite(query: &mut Query) -> Result<(), StageError> {
    isolate_operands(&mut query.body)?;
    let has_clauses = query.order_by.is_some() || query.limit_clause.is_some() || query.fetch.is_some();
    if has_clauses && query.body.as_select().is_none() {
        query.body = parse(&format!("SELECT * FROM ({}) AS \"{SET_ALIAS}\"", query.body))?.body;
    }
    Ok(())
}

fn isolate_operands(body: &mut SetExpr) -> Result<(), StageError> {
    let SetExpr::SetOperation { left, right, .. } = body else {
        return Ok(());
    };
    for operand in [left, right] {
        isolate_operands(operand)?;
        if let SetExpr::SetOperation { .. } = **operand {
            **operand = SetExpr::Query(Box::new(parse(&operand.to_string())?));
        }
    }
    Ok(())
}
