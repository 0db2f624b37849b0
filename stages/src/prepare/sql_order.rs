//! A defined order of rows for the plan of a query, whatever the number of threads.
//!
//! Takes the plan that polars-sql makes and gives one in which every step keeps or makes a defined order: joins keep the
//! left order, groups and distinct rows come as they are first met, a sort's ties are broken by the columns that are
//! selected from it, and rows are in one chunk wherever numbers may be added up. Whole numbers are counted, added and
//! multiplied as i64: polars counts in u32 and keeps the operands' type, and both wrap around silently. It knows no SQL
//! and no tables.
//!
//! Invariant: a step that this file does not know is an error. The plan runs on the in-memory engine alone: polars' own
//! `collect` would hand groups to its streaming engine, which adds floats in another order from run to run.

use std::sync::Arc;

use polars::prelude::*;
use polars_expr::prelude::ExecutionState;
use polars_plan::dsl::{BaseColumnUdf, DslPlan, FunctionExpr, new_column_udf};
use polars_plan::frame::OptFlags;
use polars_plan::plans::{DslFunction, FunctionIR, IRPlan};
use polars_plan::prelude::FunctionOptions;

use super::sql_text::refused;
use crate::StageError;

const WHOLE_SUM: &str = "headwater:sum";
/// The name of a step that is not in the query; errors leave it out.
pub const WIDENED: &str = "headwater:i64";

/// Gives the plan a defined order. Without a set operation in the query, a union in the plan is one that reorders rows.
///
/// # Errors
/// If the plan holds a step whose order is not known.
pub fn ordered(plan: DslPlan, has_set_operation: bool) -> Result<DslPlan, StageError> {
    Ordering { has_set_operation, joins: 0 }.plan(plan, None)
}

/// Runs a plan on the in-memory engine.
///
/// # Errors
/// Whatever polars finds wrong with the plan or the data.
pub fn collect(plan: DslPlan) -> PolarsResult<DataFrame> {
    let frame = LazyFrame::from(plan);
    let mut optimizations = frame.get_current_optimizations();
    // Both reason about which orders are observed; a sum of floats observes an order without knowing it.
    optimizations.remove(OptFlags::CHECK_ORDER_OBSERVE | OptFlags::SORT_COLLAPSE);
    let optimized = frame.with_optimizations(optimizations).to_alp_optimized()?;
    let IRPlan { lp_top, mut lp_arena, mut expr_arena } = optimized;
    let mut run = polars_mem_engine::create_physical_plan(lp_top, &mut lp_arena, &mut expr_arena, None)?;
    run.execute(&mut ExecutionState::new())
}

struct Ordering {
    has_set_operation: bool,
    joins: usize,
}

impl Ordering {
    fn arc(&mut self, plan: Arc<DslPlan>) -> Result<Arc<DslPlan>, StageError> {
        self.plan(Arc::unwrap_or_clone(plan), None).map(Arc::new)
    }

    /// As [`Self::arc`], with the rows in one chunk: a filter leaves as many chunks as there are threads, and a sum
    /// over chunks is a sum of sums.
    fn one_chunk(&mut self, plan: Arc<DslPlan>, ties: Option<Vec<Expr>>) -> Result<Arc<DslPlan>, StageError> {
        let input = Arc::new(self.plan(Arc::unwrap_or_clone(plan), ties)?);
        Ok(Arc::new(DslPlan::MapFunction { input, function: DslFunction::FunctionIR(FunctionIR::Rechunk) }))
    }

    fn all(&mut self, plans: Vec<DslPlan>) -> Result<Vec<DslPlan>, StageError> {
        plans.into_iter().map(|plan| self.plan(plan, None)).collect()
    }

    /// `ties` are the columns that are selected from this plan, if that is known.
    fn plan(&mut self, plan: DslPlan, ties: Option<Vec<Expr>>) -> Result<DslPlan, StageError> {
        Ok(match plan {
            DslPlan::IR { dsl, .. } => self.plan(Arc::unwrap_or_clone(dsl), ties)?,
            DslPlan::DataFrameScan { .. } => plan,
            DslPlan::Filter { input, predicate } => {
                let predicate = expr(predicate)?.map_expr(sum_on_one_thread);
                DslPlan::Filter { input: self.one_chunk(input, None)?, predicate }
            }
            DslPlan::Select { expr: selected, input, options } => {
                let input = self.one_chunk(input, columns(&selected))?;
                DslPlan::Select { expr: ungrouped(selected)?, input, options }
            }
            DslPlan::HStack { input, exprs: added, options } => {
                DslPlan::HStack { input: self.one_chunk(input, None)?, exprs: ungrouped(added)?, options }
            }
            DslPlan::GroupBy { input, keys, predicates, aggs, options, apply: None, .. } => DslPlan::GroupBy {
                input: self.one_chunk(input, None)?,
                keys: exprs(keys)?,
                predicates: exprs(predicates)?,
                aggs: exprs(aggs)?,
                maintain_order: true,
                options,
                apply: None,
            },
            DslPlan::Sort { input, by_column, slice, sort_options } => {
                let input = self.one_chunk(input, None)?;
                let (by_column, sort_options) = with_ties(ungrouped(by_column)?, sort_options, ties);
                DslPlan::Sort { input, by_column, slice, sort_options }
            }
            DslPlan::Distinct { input, mut options } => {
                options.maintain_order = true;
                if let UniqueKeepStrategy::Any = options.keep_strategy {
                    options.keep_strategy = UniqueKeepStrategy::First;
                }
                DslPlan::Distinct { input: self.arc(input)?, options }
            }
            DslPlan::Slice { input, offset, len } => DslPlan::Slice { input: self.arc(input)?, offset, len },
            DslPlan::MapFunction { input, function } => {
                DslPlan::MapFunction { input: self.arc(input)?, function: known(function)? }
            }
            DslPlan::Join { .. } => self.join(plan)?,
            DslPlan::HConcat { inputs, options } => DslPlan::HConcat { inputs: self.all(inputs)?, options },
            DslPlan::Union { .. } if !self.has_set_operation => {
                return Err(refused("`not in` with a subquery that names the outer table: use `not exists`"));
            }
            DslPlan::Union { inputs, mut args } => {
                args.maintain_order = true;
                DslPlan::Union { inputs: self.all(inputs)?, args }
            }
            other => return Err(unknown(<&str>::from(&other))),
        })
    }

    fn join(&mut self, plan: DslPlan) -> Result<DslPlan, StageError> {
        let DslPlan::Join { input_left, input_right, left_on, right_on, predicates, options } = plan else {
            return Err(unknown("join"));
        };
        let mut options = Arc::unwrap_or_clone(options);
        options.args.maintain_order = match options.args.how {
            JoinType::Right => MaintainOrderJoin::RightLeft,
            _ => MaintainOrderJoin::LeftRight,
        };
        let by_pairs = !predicates.is_empty() || options.args.how.is_cross();
        let join = |left, right| {
            Ok(DslPlan::Join {
                input_left: left,
                input_right: right,
                left_on: exprs(left_on)?,
                right_on: exprs(right_on)?,
                predicates: exprs(predicates)?,
                options: Arc::new(options),
            })
        };
        let (left, right) = (self.one_chunk(input_left, None)?, self.one_chunk(input_right, None)?);
        if by_pairs { self.numbered(left, right, join) } else { join(left, right) }
    }

    /// All pairs of rows, or those that compare in some way: polars may turn either into a join that follows no order,
    /// so both sides are numbered first and the pairs sorted after.
    fn numbered(
        &mut self,
        left: Arc<DslPlan>,
        right: Arc<DslPlan>,
        join: impl FnOnce(Arc<DslPlan>, Arc<DslPlan>) -> Result<DslPlan, StageError>,
    ) -> Result<DslPlan, StageError> {
        self.joins += 1;
        let names = ["left", "right"].map(|side| PlSmallStr::from(format!("headwater:{side}:{}", self.joins)));
        let [left, right] = [(left, &names[0]), (right, &names[1])].map(|(side, name)| {
            let side = LazyFrame::from(Arc::unwrap_or_clone(side));
            Arc::new(side.with_row_index(name.clone(), None).logical_plan)
        });
        let sorted = LazyFrame::from(join(left, right)?)
            .sort(names.clone(), SortMultipleOptions::default().with_maintain_order(true));
        Ok(sorted.drop(by_name(names, true, false)).logical_plan)
    }
}

/// The names selected, if nothing but names is.
fn columns(selected: &[Expr]) -> Option<Vec<Expr>> {
    selected.iter().all(|expr| matches!(expr, Expr::Column(_))).then(|| selected.to_vec())
}

/// Ties come ascending with nulls last, as under `order by` without further words.
fn with_ties(
    mut by: Vec<Expr>,
    mut options: SortMultipleOptions,
    ties: Option<Vec<Expr>>,
) -> (Vec<Expr>, SortMultipleOptions) {
    let ties = ties.unwrap_or_else(|| vec![all().as_expr()]);
    for (flags, tie) in [(&mut options.descending, false), (&mut options.nulls_last, true)] {
        if let [flag] = flags[..] {
            flags.resize(by.len(), flag);
        }
        flags.resize(by.len() + ties.len(), tie);
    }
    by.extend(ties);
    (by, options.with_maintain_order(true))
}

fn known(function: DslFunction) -> Result<DslFunction, StageError> {
    match function {
        DslFunction::RowIndex { .. } | DslFunction::Explode { .. } | DslFunction::Rename { .. } => Ok(function),
        _ => Err(unknown("function")),
    }
}

fn unknown(step: &str) -> StageError {
    refused(format!("the step `{step}` has no defined order of rows"))
}

fn exprs(all: Vec<Expr>) -> Result<Vec<Expr>, StageError> {
    all.into_iter().map(expr).collect()
}

/// Expressions over all rows at once.
fn ungrouped(all: Vec<Expr>) -> Result<Vec<Expr>, StageError> {
    all.into_iter().map(|it| Ok(expr(it)?.map_expr(sum_on_one_thread))).collect()
}

/// Without groups, polars may cut a sum into as many parts as there are threads; within groups it does not.
fn sum_on_one_thread(expr: Expr) -> Expr {
    match expr {
        Expr::Agg(AggExpr::Sum(input)) => whole_sum(Arc::unwrap_or_clone(input)),
        Expr::Over { function, partition_by, order_by, mapping } => {
            let function = Arc::unwrap_or_clone(function).map_expr(plain_sum);
            Expr::Over { function: Arc::new(function), partition_by, order_by, mapping }
        }
        other => other,
    }
}

fn whole_sum(input: Expr) -> Expr {
    let sum = BaseColumnUdf::new(
        |columns: &mut [Column]| Ok(columns[0].sum_reduce()?.into_column(columns[0].name().clone())),
        |_: &Schema, fields: &[Field]| {
            let sum = Series::new_empty(PlSmallStr::EMPTY, fields[0].dtype()).sum_reduce()?;
            Ok(Field::new(fields[0].name().clone(), sum.dtype().clone()))
        },
    );
    Expr::AnonymousFunction {
        input: vec![input],
        function: new_column_udf(sum),
        options: FunctionOptions::aggregation(),
        fmt_str: Box::new(WHOLE_SUM.into()),
    }
}

/// Takes [`whole_sum`] back.
fn plain_sum(expr: Expr) -> Expr {
    match expr {
        Expr::AnonymousFunction { mut input, fmt_str, .. } if **fmt_str == *WHOLE_SUM && input.len() == 1 => {
            input.remove(0).sum()
        }
        other => other,
    }
}

/// Counts as i64, and sums and products of whole numbers in i64.
fn wide(expr: Expr) -> Expr {
    match expr {
        Expr::Len
        | Expr::Agg(AggExpr::Count { .. } | AggExpr::NUnique(_))
        | Expr::Function { function: FunctionExpr::CumCount { .. } | FunctionExpr::Rank { .. }, .. } => {
            expr.cast(DataType::Int64)
        }
        // polars would take the constant for a column of one row.
        Expr::Agg(AggExpr::Sum(input)) if matches!(*input, Expr::Literal(_)) => {
            Arc::unwrap_or_clone(input) * len().cast(DataType::Int64)
        }
        Expr::Agg(AggExpr::Sum(input)) => Expr::Agg(AggExpr::Sum(Arc::new(widened(Arc::unwrap_or_clone(input))))),
        Expr::BinaryExpr { left, op, right } if is_arithmetic(op) => {
            let [left, right] = [left, right].map(|side| Arc::new(widened(Arc::unwrap_or_clone(side))));
            Expr::BinaryExpr { left, op, right }
        }
        Expr::Function { input, function } if is_arithmetic_function(&function) => {
            Expr::Function { input: input.into_iter().map(widened).collect(), function }
        }
        other => other,
    }
}

fn is_arithmetic(op: Operator) -> bool {
    matches!(op, Operator::Plus | Operator::Minus | Operator::Multiply)
}

fn is_arithmetic_function(function: &FunctionExpr) -> bool {
    matches!(function, FunctionExpr::Negate | FunctionExpr::Abs | FunctionExpr::CumSum { .. } | FunctionExpr::Pow(_))
}

/// Whole numbers and booleans as i64, anything else as it is: the plan does not know types yet. A u64 beyond i64 is an
/// error when it is met.
fn widened(expr: Expr) -> Expr {
    let is_wide = match &expr {
        // A number of the query takes the type of the other operand.
        Expr::Literal(_) => true,
        Expr::BinaryExpr { op, .. } => is_arithmetic(*op),
        Expr::AnonymousFunction { fmt_str, .. } => ***fmt_str == *WIDENED,
        _ => false,
    };
    if is_wide {
        return expr;
    }
    let widen = BaseColumnUdf::new(
        |columns: &mut [Column]| {
            let column = std::mem::take(&mut columns[0]);
            if is_narrow(column.dtype()) { column.strict_cast(&DataType::Int64) } else { Ok(column) }
        },
        |_: &Schema, fields: &[Field]| {
            let dtype = fields[0].dtype();
            let dtype = if is_narrow(dtype) { DataType::Int64 } else { dtype.clone() };
            Ok(Field::new(fields[0].name().clone(), dtype))
        },
    );
    Expr::AnonymousFunction {
        input: vec![expr],
        function: new_column_udf(widen),
        options: FunctionOptions::elementwise(),
        fmt_str: Box::new(WIDENED.into()),
    }
}

fn is_narrow(dtype: &DataType) -> bool {
    (dtype.is_integer() && *dtype != DataType::Int64) || dtype.is_bool()
}

fn expr(expr: Expr) -> Result<Expr, StageError> {
    let ordered = expr.try_map_expr(|expr| match wide(expr) {
        Expr::SubPlan(..) => Err(polars_err!(SQLInterface: "a subquery outside of `from` and `where`")),
        Expr::SortBy { expr, by, sort_options } => {
            Ok(Expr::SortBy { expr, by, sort_options: sort_options.with_maintain_order(true) })
        }
        Expr::Function { input, function: FunctionExpr::Unique(_) } => {
            Ok(Expr::Function { input, function: FunctionExpr::Unique(true) })
        }
        Expr::Over { function, partition_by, order_by: Some((by, options)), mapping } => {
            let by = in_row_order(Arc::unwrap_or_clone(by), options.descending);
            Ok(Expr::Over { function, partition_by, order_by: Some((Arc::new(by), options)), mapping })
        }
        other => Ok(other),
    });
    ordered.map_err(|_| refused("a subquery is understood in `from` and, with `in` or `exists`, in `where`"))
}

/// polars sorts the rows of a window without keeping the order of equal ones, so the row's number joins the key.
fn in_row_order(by: Expr, descending: bool) -> Expr {
    let row = int_range(lit(0i64), len(), 1, DataType::Int64);
    let row = if descending { lit(0i64) - row } else { row };
    as_struct(vec![by, row.alias("headwater:row")])
}
