const find = name => document.getElementById(name);
const content = JSON.parse(find("content").textContent), trials = content.trials;
const shelf = "ff-bench-votes-" + content.assignment;
const voices = ["left", "right", "tie"];
let isStored = true, place = 0, since = performance.now();

function newVoter() {
  return [...crypto.getRandomValues(new Uint8Array(6))].map(byte => byte.toString(16).padStart(2, "0")).join("");
}
// A store that is shut, full or spoilt costs the memory across visits, not the votes of this one.
function load() {
  try {
    const found = JSON.parse(localStorage.getItem(shelf)), votes = {};
    if (!found || !/^[0-9a-f]{12}$/.test(found.voter)) return { voter: newVoter(), votes };
    for (const { trial } of trials) {
      const vote = (found.votes || {})[trial];
      if (vote && voices.includes(vote.choice) && Number.isInteger(vote.ms) && vote.ms >= 0) votes[trial] = vote;
    }
    return { voter: found.voter, votes };
  } catch { return { voter: newVoter(), votes: {} }; }
}
function store() {
  try { localStorage.setItem(shelf, JSON.stringify(state)); isStored = true; } catch { isStored = false; }
}
const state = load();
const together = new Together(trials[0].fps, show);

function say(text) { find("notice").textContent = text; find("notice").hidden = !text; }

function show() {
  const { time, length, playing, fps } = together;
  find("play").textContent = playing ? "Pause" : "Play";
  find("bar").max = length || 1; find("bar").step = 1 / fps; find("bar").value = time;
  find("clock").value = time.toFixed(1) + " / " + length.toFixed(1) + " s";
}
function turn(to, starts) {
  place = Math.max(0, Math.min(trials.length - 1, to));
  const trial = trials[place], videos = [find("left"), find("right")];
  find("prompt").textContent = trial.prompt;
  together.pause();
  videos[0].src = content.videos[trial.left]; videos[1].src = content.videos[trial.right];
  together.fps = trial.fps; together.use(videos, 0);
  since = performance.now();
  paint();
  if (starts) begin(place);
}
// Plays as soon as both are there.
async function begin(at) {
  for (let tries = 0; tries < 250 && [find("left"), find("right")].some(video => video.readyState < 3); tries++)
    await new Promise(done => setTimeout(done, 20));
  if (at === place) together.play();
}
function paint() {
  const done = trials.filter(({ trial }) => state.votes[trial]).length, vote = state.votes[trials[place].trial];
  find("count").value = "pair " + (place + 1) + " of " + trials.length + ", " + done + " voted";
  find("progress").max = trials.length; find("progress").value = done;
  for (const button of document.querySelectorAll("[data-vote]"))
    button.setAttribute("aria-pressed", Boolean(vote) && vote.choice === button.dataset.vote);
  for (const side of ["left", "right"])
    find(side).parentNode.classList.toggle("chosen", Boolean(vote) && vote.choice === side);
  find("back").disabled = place === 0; find("next").disabled = place === trials.length - 1;
  find("export").disabled = done === 0;
}
function unvoted(from) {
  for (let step = 0; step < trials.length; step++) {
    const other = (from + step) % trials.length;
    if (!state.votes[trials[other].trial]) return other;
  }
  return -1;
}
function vote(choice) {
  const ms = Math.round(performance.now() - since);
  state.votes[trials[place].trial] = { choice, ms };
  store();
  say(isStored ? "" : "This browser keeps nothing: export before you leave the page.");
  const next = unvoted(place + 1);
  if (next < 0) { together.pause(); paint(); say("All pairs have a vote: export them. You may still go back and change some."); }
  else turn(next, true);
}
function exported() {
  const votes = trials.filter(({ trial }) => state.votes[trial]).map(({ trial }) => ({ trial, ...state.votes[trial] }));
  const lines = votes.map(({ trial, choice, ms }) => trial + " " + choice + " " + ms);
  const sum = checksum([content.assignment, state.voter, ...lines].join("\n"));
  return { format: "ff-bench votes", version: 1, assignment: content.assignment, voter: state.voter, votes, checksum: sum };
}
function save() {
  const link = document.createElement("a"), name = "votes-" + content.assignment.slice(0, 8) + "-" + state.voter + ".json";
  const address = URL.createObjectURL(new Blob([JSON.stringify(exported(), null, 1) + "\n"], { type: "application/json" }));
  link.href = address; link.download = name; link.click();
  setTimeout(() => URL.revokeObjectURL(address), 10000);
  say("Saved " + name + ". Whoever made this page reads it with: ff-bench report RUNS votes=" + name);
}
function again() { together.pause(); together.seek(0); together.play(); }
const keys = {
  "1": () => vote("left"), "2": () => vote("right"), "0": () => vote("tie"), " ": () => together.toggle(), r: again,
  b: () => turn(place - 1, true), n: () => turn(place + 1, true), Backspace: () => turn(place - 1, true),
  ArrowLeft: () => together.step(-1), ArrowRight: () => together.step(1),
};
document.addEventListener("keydown", event => {
  const action = keys[event.key.length === 1 ? event.key.toLowerCase() : event.key];
  if (!action || event.repeat && !event.key.startsWith("Arrow") || isTaken(event)) return;
  event.preventDefault();
  action();
});
for (const button of document.querySelectorAll("[data-vote]"))
  button.addEventListener("click", () => { button.blur(); vote(button.dataset.vote); });
const clicks = { play: () => together.toggle(), back: () => turn(place - 1, true), next: () => turn(place + 1, true), export: save };
for (const [name, action] of Object.entries(clicks)) find(name).addEventListener("click", () => { find(name).blur(); action(); });
find("bar").addEventListener("input", () => together.seek(Number(find("bar").value)));
const first = unvoted(0);
turn(first < 0 ? 0 : first, false);
