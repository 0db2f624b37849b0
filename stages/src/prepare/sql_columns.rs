//! Which columns of which table a query can name.
//!
//! Works on the syntax tree and the tables' headers; it does not know data. Names are compared as they are written.
//!
//! Invariant: what is selected is a superset of what polars-sql may read. Too narrow a selection would be an error in
//! the run, never a wrong answer, for the run sees the selected columns alone.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::ControlFlow;

use sqlparser::ast::{
    Expr, Function, FunctionArg, FunctionArgExpr, FunctionArguments, Ident, JoinConstraint, JoinOperator, Query,
    Select, SelectItem, SelectItemQualifiedWildcardKind, SetExpr, TableAlias, TableFactor, TableWithJoins, Visit,
    Visitor,
};

use super::sql_text::last_part;
use crate::kind::{Selection, Selections};

/// Names that polars-sql gives to expressions without one, and `order by all`.
const GIVEN: [&str; 4] = ["all", "count", "len", "literal"];

/// What a query names.
#[derive(Debug, Default)]
pub struct Names {
    /// Something that cannot be narrowed down: every column of every table.
    everything: bool,
    /// Columns named without a table.
    plain: BTreeSet<String>,
    /// Table or alias, and column.
    qualified: BTreeSet<(String, String)>,
    /// Tables or aliases all of whose columns are named.
    whole: BTreeSet<String>,
    /// Table or alias, to the tables it stands for.
    tables: BTreeMap<String, BTreeSet<String>>,
    /// Names that the query itself gives to columns.
    given: BTreeSet<String>,
}

impl Names {
    /// Collects from a whole query.
    pub fn of(query: &Query) -> Self {
        let mut names = Self::default();
        let _ = query.visit(&mut names);
        names
    }

    /// The columns of each table that can be read. If a name is found nowhere, everything is selected, so that the
    /// error can list the columns there are.
    pub fn selections(&self, columns: &BTreeMap<String, Vec<String>>) -> Selections {
        let all = self.everything || self.unknown(columns).is_some();
        let select = |table: &String| if all { Selection::All } else { self.selection(table) };
        columns.keys().map(|table| (table.clone(), select(table))).collect()
    }

    fn selection(&self, table: &str) -> Selection {
        let is = |name: &String| self.stands_for(name, table);
        if self.whole.iter().any(is) {
            return Selection::All;
        }
        if !self.tables.values().any(|tables| tables.contains(table)) {
            return Selection::Only(Vec::new());
        }
        let qualified = self.qualified.iter().filter(|(name, _)| is(name)).map(|(_, column)| column);
        let columns: BTreeSet<&String> = self.plain.iter().chain(qualified).collect();
        Selection::Only(columns.into_iter().cloned().collect())
    }

    fn stands_for(&self, name: &str, table: &str) -> bool {
        self.tables.get(name).is_some_and(|tables| tables.contains(table))
    }

    /// The first name that no table and no alias explains, with the columns that could have been meant.
    pub fn unknown(&self, columns: &BTreeMap<String, Vec<String>>) -> Option<(String, Vec<String>)> {
        let used = |table: &String| self.tables.values().any(|tables| tables.contains(table));
        let columns: BTreeMap<&String, &Vec<String>> = columns.iter().filter(|(table, _)| used(table)).collect();
        let every: BTreeSet<&String> = columns.values().copied().flatten().collect();
        let given = |name: &str| {
            // The columns of `values` are called `column_0`, `column_1`, ….
            let lower = name.to_lowercase();
            self.given.contains(name) || GIVEN.contains(&lower.as_str()) || lower.starts_with("column_")
        };
        if let Some(name) = self.plain.iter().find(|name| !every.contains(name) && !given(name)) {
            let list = |(table, names): (&&String, &&Vec<String>)| {
                names.iter().map(|name| format!("{table}.{name}")).collect::<Vec<_>>()
            };
            return Some((name.clone(), columns.iter().flat_map(list).collect()));
        }
        self.qualified.iter().find_map(|(table, column)| {
            let mut stored = self.tables.get(table)?.iter().filter_map(|table| columns.get(table).copied()).peekable();
            let available = stored.peek()?.to_vec();
            let found = stored.any(|names| names.contains(column));
            (!found).then(|| (format!("{table}.{column}"), available))
        })
    }

    fn name(&mut self, name: &Ident) {
        let name = name.value.as_str();
        // polars takes a quoted name of this form for a pattern, and one with a colon may be made by a join.
        self.everything |= (name.starts_with('^') && name.ends_with('$')) || name.contains(':');
        self.plain.insert(name.into());
    }

    fn compound(&mut self, parts: &[Ident]) {
        match parts {
            [table, column] if !column.value.contains([':', '^', '*']) => {
                self.qualified.insert((table.value.clone(), column.value.clone()));
            }
            _ => self.everything = true,
        }
    }

    fn all_of(&mut self, table: &TableWithJoins) {
        for factor in std::iter::once(&table.relation).chain(table.joins.iter().map(|join| &join.relation)) {
            match factor {
                TableFactor::Table { name, alias, .. } => drop(self.whole.insert(called(alias, || last_part(name)))),
                TableFactor::NestedJoin { table_with_joins, .. } => self.all_of(table_with_joins),
                _ => {}
            }
        }
    }

    fn joins(&mut self, table: &TableWithJoins) {
        for join in &table.joins {
            match constraint(&join.join_operator) {
                Some(JoinConstraint::Using(columns)) => {
                    self.plain.extend(columns.iter().map(last_part));
                }
                Some(JoinConstraint::Natural) => self.all_of(table),
                _ => {}
            }
        }
    }

    fn bare_tables(&mut self, body: &SetExpr) {
        match body {
            SetExpr::Table(table) => {
                if let Some(name) = &table.table_name {
                    self.whole.insert(name.clone());
                    self.table(name.clone(), name.clone());
                }
            }
            SetExpr::SetOperation { left, right, .. } => {
                self.bare_tables(left);
                self.bare_tables(right);
            }
            _ => {}
        }
    }

    fn table(&mut self, called: String, table: String) {
        self.tables.entry(called).or_default().insert(table);
    }

    fn columns_of(&mut self, alias: &TableAlias) {
        self.given.insert(alias.name.value.clone());
        self.given.extend(alias.columns.iter().map(|column| column.name.value.clone()));
    }

    fn function(&mut self, function: &Function) {
        let name = function.name.to_string().to_lowercase();
        let FunctionArguments::List(list) = &function.args else {
            return;
        };
        let counts = |arg: &FunctionArg| {
            name == "count" && list.args.len() == 1 && matches!(arg, FunctionArg::Unnamed(FunctionArgExpr::Wildcard))
        };
        let wild = list.args.iter().any(|arg| match arg {
            FunctionArg::Unnamed(FunctionArgExpr::Expr(_)) => false,
            other => !counts(other),
        });
        self.everything |= wild || name == "columns";
    }
}

fn called(alias: &Option<TableAlias>, own: impl FnOnce() -> String) -> String {
    alias.as_ref().map_or_else(own, |alias| alias.name.value.clone())
}

fn constraint(operator: &JoinOperator) -> Option<&JoinConstraint> {
    use JoinOperator as J;
    match operator {
        J::Join(it) | J::Inner(it) | J::Left(it) | J::LeftOuter(it) | J::Right(it) | J::RightOuter(it) => Some(it),
        J::FullOuter(it) | J::CrossJoin(it) | J::Semi(it) | J::LeftSemi(it) | J::RightSemi(it) => Some(it),
        J::Anti(it) | J::LeftAnti(it) | J::RightAnti(it) | J::StraightJoin(it) => Some(it),
        _ => None,
    }
}

impl Visitor for Names {
    type Break = ();

    fn pre_visit_query(&mut self, query: &Query) -> ControlFlow<()> {
        for table in query.with.iter().flat_map(|with| &with.cte_tables) {
            self.columns_of(&table.alias);
        }
        self.bare_tables(&query.body);
        ControlFlow::Continue(())
    }

    fn pre_visit_select(&mut self, select: &Select) -> ControlFlow<()> {
        for item in &select.projection {
            match item {
                SelectItem::UnnamedExpr(_) => {}
                SelectItem::ExprWithAlias { alias, .. } => {
                    self.given.insert(alias.value.clone());
                }
                SelectItem::QualifiedWildcard(SelectItemQualifiedWildcardKind::ObjectName(name), _) => {
                    self.whole.insert(last_part(name));
                }
                SelectItem::Wildcard(options) => {
                    // New names may come from `rename` and `replace`.
                    self.everything |= options.opt_rename.is_some() || options.opt_replace.is_some();
                    select.from.iter().for_each(|table| self.all_of(table));
                }
                _ => self.everything = true,
            }
        }
        if select.projection.is_empty() {
            select.from.iter().for_each(|table| self.all_of(table));
        }
        select.from.iter().for_each(|table| self.joins(table));
        ControlFlow::Continue(())
    }

    fn pre_visit_table_factor(&mut self, factor: &TableFactor) -> ControlFlow<()> {
        match factor {
            TableFactor::Table { name, alias, .. } => {
                let table = last_part(name);
                self.table(called(alias, || table.clone()), table);
            }
            TableFactor::Derived { alias: Some(alias), .. } | TableFactor::UNNEST { alias: Some(alias), .. } => {
                self.columns_of(alias);
            }
            TableFactor::NestedJoin { table_with_joins, .. } => self.joins(table_with_joins),
            _ => {}
        }
        ControlFlow::Continue(())
    }

    fn pre_visit_expr(&mut self, expr: &Expr) -> ControlFlow<()> {
        match expr {
            Expr::Identifier(name) => self.name(name),
            Expr::CompoundIdentifier(parts) => self.compound(parts),
            Expr::Wildcard(_) | Expr::QualifiedWildcard(..) => self.everything = true,
            Expr::Function(function) => self.function(function),
            _ => {}
        }
        ControlFlow::Continue(())
    }
}
