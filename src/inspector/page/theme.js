// Light or dark: the system's, unless one was chosen here. Runs before anything is painted.
(() => {
  const root = document.documentElement;
  const dark = matchMedia("(prefers-color-scheme: dark)");
  const stored = () => {
    try { return localStorage.getItem("callhook-theme"); } catch { return null; }
  };
  const effective = () => root.dataset.theme ?? (dark.matches ? "dark" : "light");
  const chosen = stored();
  if (chosen === "light" || chosen === "dark") root.dataset.theme = chosen;

  addEventListener("DOMContentLoaded", () => {
    const button = document.getElementById("theme");
    const label = () => { button.textContent = effective() === "dark" ? "Light" : "Dark"; };
    button.addEventListener("click", () => {
      root.dataset.theme = effective() === "dark" ? "light" : "dark";
      try { localStorage.setItem("callhook-theme", root.dataset.theme); } catch { /* not kept, then */ }
      label();
    });
    dark.addEventListener("change", label);
    label();
  });
})();
