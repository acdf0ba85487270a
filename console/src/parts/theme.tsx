// Dark, light, or as the system has it. The choice stays in this browser.
import { useState } from 'preact/hooks'

const CHOICES = ['system', 'light', 'dark'] as const
type Theme = (typeof CHOICES)[number]

function chosen(): Theme {
  try {
    const kept = localStorage.getItem('theme')
    return CHOICES.find((choice) => choice === kept) ?? 'system'
  } catch {
    return 'system'
  }
}

export function wear(theme: Theme = chosen()): void {
  document.documentElement.dataset.theme = theme
}

export function ThemeSwitch() {
  const [theme, set] = useState(chosen)
  const choose = (choice: Theme) => {
    set(choice)
    wear(choice)
    try {
      localStorage.setItem('theme', choice)
    } catch {
      // Without storage it lasts as long as the page.
    }
  }
  return (
    <label class="theme">
      <span class="unseen">Colours</span>
      <select value={theme} onChange={(event) => choose(event.currentTarget.value as Theme)}>
        <option value="system">System</option>
        <option value="light">Light</option>
        <option value="dark">Dark</option>
      </select>
    </label>
  )
}
