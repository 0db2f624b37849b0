"""The work of examples/flights as a person would write it with pandas and scikit-learn, for benches/flights.

Needs pandas, scikit-learn and zstandard (PyPI).
"""

import sys
from pathlib import Path

import pandas as pd
from joblib import Parallel, delayed
from sklearn.compose import ColumnTransformer
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import accuracy_score, f1_score, precision_score, recall_score, roc_auc_score
from sklearn.model_selection import train_test_split
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler
from sklearn.tree import DecisionTreeClassifier

data = Path(sys.argv[1])
flights = pd.read_csv(data / "flights.csv.zst")
weather = pd.read_csv(data / "weather.csv.zst")[
    ["origin", "time_hour", "temp", "humid", "wind_speed", "precip", "pressure", "visib"]
]
planes = pd.read_csv(data / "planes.csv.zst")[["tailnum", "year", "seats", "engines"]].rename(columns={"year": "built"})

rows = flights[flights.arr_delay.notna()]
rows = rows.merge(weather, how="left", on=["origin", "time_hour"]).merge(planes, how="left", on="tailnum")
late = rows.arr_delay > 15
numeric = ["month", "hour", "dep_delay", "distance", "temp", "humid", "wind_speed", "precip", "pressure", "visib"]
numeric += ["built", "seats", "engines"]
categorical = ["carrier", "origin"]
train, test, late_train, late_test = train_test_split(
    rows[numeric + categorical], late, test_size=0.2, stratify=late, random_state=7
)
prepare = ColumnTransformer([
    ("numeric", make_pipeline(SimpleImputer(strategy="median"), StandardScaler()), numeric),
    ("categorical", OneHotEncoder(min_frequency=0.01, handle_unknown="ignore", sparse_output=False), categorical),
])
train, test = prepare.fit_transform(train), prepare.transform(test)

models = {f"logistic_{l2}": LogisticRegression(C=1.0 / l2 if l2 else float("inf"), tol=1e-4) for l2 in [0, 1, 100, 10000]}
models |= {f"tree_{depth}": DecisionTreeClassifier(max_depth=depth, random_state=7) for depth in [4, 6, 8]}
models["tree_12"] = DecisionTreeClassifier(max_depth=12, min_samples_leaf=50, random_state=7)


def evaluate(name, model):
    model.fit(train, late_train)
    predicted, probability = model.predict(test), model.predict_proba(test)[:, 1]
    scores = (accuracy_score, precision_score, recall_score, f1_score)
    return [name, roc_auc_score(late_test, probability)] + [score(late_test, predicted) for score in scores]


table = pd.DataFrame(Parallel(n_jobs=2)(delayed(evaluate)(name, model) for name, model in models.items()))
print(table.sort_values(1, ascending=False).to_string(index=False, header=False))
