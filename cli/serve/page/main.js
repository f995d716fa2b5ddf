// The page: which parts there are, and what they show when the state changes.

import { $, follow } from "./api.js";
import * as check from "./check.js";
import * as look from "./look.js";
import * as make from "./make.js";
import * as teach from "./teach.js";

follow((state) => {
  $("model").textContent = state.teach ? `${state.folder.split("/").at(-1)} · ${state.model}` : state.model;
  $("model").title = state.folder ?? "";
  document.body.classList.toggle("teaching", state.teach);
  for (const id of ["teach", "check", "make"]) $(id).hidden = !state.teach;
  look.show(state);
  if (state.teach) for (const part of [teach, check, make]) part.show(state);
});
look.live();
